"""Any policy behind the geometric guard: every task with geometry, moving obstacles and walls included."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.policy import Action, OutcomePolicy, Policy, PrivilegedPolicy

if TYPE_CHECKING:
    import gymnasium

    from safety.guard import Guard
    from safety.layout import EnvSpec


class GuardedPolicy:
    """`policy` proposes, `safety.guard.GeometricGuard` decides, from observations only."""

    def __init__(self, policy: Policy, *, margin: float = 0.03) -> None:
        if not np.isfinite(margin) or margin < 0:
            raise ValueError(f"margin must be a finite number of metres >= 0, got {margin}")
        self.policy, self.margin = policy, margin
        self._for: EnvSpec | None = None

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        """Begin an episode.

        Raises:
            ValueError: the task has no geometry to guard by.
        """
        if self._for != spec:
            self._guard = self._make_guard(spec)
            self._for = spec
        self._guard.reset()
        self.policy.reset(spec, seed=seed)

    def _make_guard(self, spec: EnvSpec) -> Guard:
        from safety.guard import GeometricGuard

        return GeometricGuard(spec, margin=self.margin)

    def bind(self, env: gymnasium.Env) -> None:
        """Hand the environment to a privileged policy; the guard keeps to the observations."""
        if isinstance(self.policy, PrivilegedPolicy):
            self.policy.bind(env)

    def outcome(self, action: np.ndarray, reward: float, cost: float) -> None:
        """Tell the policy what was executed and what it came to, where it asks for that."""
        if isinstance(self.policy, OutcomePolicy):
            self.policy.outcome(action, reward, cost)

    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        proposed = self.policy.act(observation, cost)
        started = time.perf_counter()
        report = self._guard.guard(observation, proposed.value)
        own: dict[str, Any] = {
            "filter_ms": 1e3 * (time.perf_counter() - started),
            "intervened": report.intervened,
            "infeasible": report.infeasible,
            "correction": report.delta,
            "clearance": report.clearance,
        }
        return Action(np.asarray(report.action), {**proposed.report, **own})


@dataclass(frozen=True)
class GuardedFactory:
    """A picklable factory of a guarded policy."""

    inner: Callable[[], Policy]
    margin: float = 0.03

    def __call__(self) -> Policy:
        return GuardedPolicy(self.inner(), margin=self.margin)

"""The sequence planner as a policy that `evaluate` can run, with the safety filter behind it where there is one."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.policy import Action
from diffdecide.sequence_planner import SequencePlan, SequencePlanner
from safety.caution import DEFAULT_MARGIN
from safety.costs import Budget

if TYPE_CHECKING:
    from safety.guard import GeometricGuard
    from safety.layout import EnvSpec


@dataclass(frozen=True, kw_only=True)
class SequencePolicyConfig:
    """What a worker needs to build the policy.

    Attributes:
        planner: folder of the planner.
        filtered: put the geometric guard behind it, where the agent has a motion model and what costs has a place.
        margin: m that the filter keeps.
        cost_limit: cost per episode that may be spent; None: the planner's own wish decides.
        settings: overrides of `SequencePlannerConfig`.
    """

    planner: str
    filtered: bool = True
    margin: float = DEFAULT_MARGIN
    cost_limit: float | None = 25.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin must be a finite number of metres >= 0, got {self.margin}")
        if self.cost_limit is not None and not 0 <= self.cost_limit < float("inf"):
            raise ValueError(f"cost_limit must be finite and >= 0, got {self.cost_limit}")


class SequencePolicy:
    """Keeps the recent past, plans when a plan is due, spends the budget.

    Where the cost is not observed, the budget falls by the critic's predicted cost per step; the report says which.
    """

    def __init__(self, config: SequencePolicyConfig) -> None:
        self.config = config
        self.planner = SequencePlanner.from_pretrained(config.planner, **config.settings)
        self._spec: EnvSpec | None = None

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        """Begin an episode.

        Raises:
            ValueError: the planner was trained for another environment.
        """
        known = self.planner.config.format.spec
        if spec.id != known.id or spec.observation_dim != known.observation_dim or spec.action_dim != known.action_dim:
            raise ValueError(
                f"this planner was trained for {known.id} (observations of {known.observation_dim} values, actions of "
                f"{known.action_dim}), not for {spec.id} ({spec.observation_dim} and {spec.action_dim})"
            )
        if self._spec is None:
            self._guard = _guard(spec, self.config.margin) if self.config.filtered else None
        self._spec = spec
        if self._guard is not None:
            self._guard.reset()
        self.planner.reset(seed=seed)
        self._seen: list[np.ndarray] = []
        self._done: list[np.ndarray] = []
        self._plan: SequencePlan | None = None
        self._used = 0
        self._step = 0
        self._budget = None if self.config.cost_limit is None else Budget(self.config.cost_limit)

    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        """The next action for `observation` [o]; `cost` is that of the step before, where it is observed.

        Raises:
            ValueError: an observation of another width or not finite; `reset` was not called.
        """
        if self._spec is None:
            raise ValueError("call reset(env_spec) before act(observation)")
        self._seen.append(np.asarray(observation, dtype=np.float32).reshape(-1))
        report: dict[str, Any] = {}
        if self._step:
            self._spend(cost)
        if self._plan is None or self._used >= self.planner.config.replan:
            started = time.perf_counter()
            self._plan = self.planner.plan(
                np.stack(self._seen),
                np.asarray(self._done, dtype=np.float32).reshape(-1, self._spec.action_dim),
                elapsed=self._used or None,
                budget=None if self._budget is None else self._budget.remaining,
                steps_left=self._spec.max_steps - self._step,
            )
            self._used = 0
            report["plan_ms"] = 1e3 * (time.perf_counter() - started)
        value = self._plan.actions[self._used]
        if self._guard is not None:
            started = time.perf_counter()
            result = self._guard.guard(observation, value)
            value = np.asarray(result.action, dtype=np.float64)
            report |= {
                "filter_ms": 1e3 * (time.perf_counter() - started),
                "intervened": result.intervened,
                "infeasible": result.infeasible,
                "correction": result.delta,
                "clearance": result.clearance,
            }
        self._used += 1
        self._step += 1
        self._done.append(np.asarray(value, dtype=np.float32))
        keep = self.planner.config.format.history
        self._seen, self._done = self._seen[-keep:], self._done[-keep:]
        report |= {"sequence": self._plan, "filtered": self._guard is not None}
        if self._budget is not None:
            report["budget"] = self._budget.report()
        return Action(value, report)

    def _spend(self, cost: float | None) -> None:
        if self._budget is None or self._plan is None:
            return
        steps = self.planner.config.format.counted_steps
        ahead = float(self._plan.costs[self._plan.chosen])
        assert self._spec is not None
        self._budget.spend(cost, predicted=ahead / min(steps, max(1, self._spec.max_steps - self._step)))


def _guard(spec: EnvSpec, margin: float) -> GeometricGuard | None:
    """None, with a warning, where the agent has no motion model or what costs has no place."""
    from safety.guard import GeometricGuard

    try:
        return GeometricGuard(spec, margin=margin)
    except ValueError as error:
        warnings.warn(f"{spec.id} has no safety filter, the planner acts alone: {error}", stacklevel=3)
        return None

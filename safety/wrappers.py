"""The guard under anything: as a Gymnasium wrapper under a learner, or in front of any callable policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from safety.filters import FilterReport
from safety.guard import Guard

INFO_KEYS = ("intervened", "infeasible", "delta", "clearance", "slack", "method")


def report_to_dict(report: FilterReport) -> dict[str, float | bool | str]:
    """The plain values of a report, with fixed keys; the action apart."""
    return {key: getattr(report, key) for key in INFO_KEYS}


@dataclass
class FilterLog:
    """What a filter did over one or more episodes, step by step: the material of `diffdecide plot`."""

    intervened: list[bool] = field(default_factory=list)
    infeasible: list[bool] = field(default_factory=list)
    delta: list[float] = field(default_factory=list)
    clearance: list[float] = field(default_factory=list)
    slack: list[float] = field(default_factory=list)
    method: list[str] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    episode_ends: list[int] = field(default_factory=list)

    def add(self, report: FilterReport, cost: float) -> None:
        """One executed step and what it cost."""
        for key, value in report_to_dict(report).items():
            getattr(self, key).append(value)
        self.cost.append(cost)

    def end_episode(self) -> None:
        """Mark the end of an episode; twice in a row counts once."""
        if len(self.cost) > (self.episode_ends[-1] if self.episode_ends else 0):
            self.episode_ends.append(len(self.cost))

    def summary(self) -> dict[str, Any]:
        """Counts and means over all steps."""
        steps = len(self.cost)
        delta = np.nan_to_num(np.asarray(self.delta, dtype=np.float64))
        return {
            "steps": steps,
            "episodes": len(self.episode_ends),
            "cost": float(np.sum(self.cost)),
            "interventions": int(np.sum(self.intervened)),
            "infeasible": int(np.sum(self.infeasible)),
            "methods": {name: self.method.count(name) for name in sorted(set(self.method))},
            "mean_delta": float(delta.mean()) if steps else 0.0,
            "max_slack": float(np.max(self.slack)) if steps else 0.0,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values (infinite clearances become null in the file)."""
        return {**{name: list(getattr(self, name)) for name in self.__dataclass_fields__}, "summary": self.summary()}


class SafeActionWrapper(gymnasium.Wrapper):
    """Executes the guard's action instead of the agent's.

    `info["filter"]` holds the report (keys `INFO_KEYS`), `info["executed_action"]` what was executed. With
    `penalty > 0` the reward falls by penalty * delta, so that a learner is told to stay away from the guard.
    An action that is not finite or of the wrong shape raises ValueError; it is never repaired.
    """

    def __init__(self, env: gymnasium.Env, guard: Guard, *, penalty: float = 0.0) -> None:
        super().__init__(env)
        if not 0 <= penalty < float("inf"):
            raise ValueError(f"penalty must be a finite number >= 0, got {penalty}")
        self.guard, self.penalty = guard, penalty
        self.log = FilterLog()
        self._observation: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, for the guard too."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.guard.reset()
        self.log.end_episode()
        self._observation = observation
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute the nearest safe action to `action`."""
        if self._observation is None:
            raise ValueError("SafeActionWrapper: call reset() before step()")
        report = self.guard.guard(self._observation, np.asarray(action, dtype=np.float64))
        observation, reward, terminated, truncated, info = self.env.step(report.action)
        self._observation = observation
        self.log.add(report, float(info.get("cost", 0.0)))
        if terminated or truncated:
            self.log.end_episode()
        info = {**info, "filter": report_to_dict(report), "executed_action": report.action}
        delta = report.delta if np.isfinite(report.delta) else 1.0
        return observation, float(reward) - self.penalty * delta, bool(terminated), bool(truncated), info


class SafePolicy:
    """Any function from observation to action, guarded: for control loops that are not Gymnasium's."""

    def __init__(self, policy: Callable[[np.ndarray], np.ndarray], guard: Guard) -> None:
        if not callable(policy):
            raise ValueError(f"policy must be callable, got {type(policy).__name__}")
        self.policy, self.guard = policy, guard

    def reset(self) -> None:
        """Begin an episode."""
        self.guard.reset()

    def __call__(self, observation: np.ndarray) -> FilterReport:
        """The report on the policy's action; `.action` is what to execute."""
        return self.guard.guard(observation, np.asarray(self.policy(observation), dtype=np.float64))

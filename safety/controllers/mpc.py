"""Sampling model-predictive control on the fitted dynamics: the ceiling that learned planners are measured against.

Cross-entropy over knots of motor commands (Rubinstein & Kroese, 2004; warm-started as in Pinneri et al., iCEM, 2020),
scored by the time to the target along the shortest way around the obstacles and by clearance. Its knobs (margin,
candidates, noise) also make it a behaviour policy with a spread of skill and risk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safety.controllers.judge import FieldCache, PlanJudge
from safety.controllers.objective import SubGoal, objective
from safety.dynamics import Dynamics
from safety.scene import Scene

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class MPCConfig:
    """Defaults: the ceiling of the tables (`../docs/results.md` says what each knob costs)."""

    knots: int = 12
    hold: int = 5  # control steps per knot; the Car's steps are twice as long, so its horizon is too
    candidates: int = 300
    rounds: int = 2
    elites: int = 20
    replan: int = 2  # control steps between plans
    margin: float = 0.03  # m kept between the agent's reference point and every hard obstacle's radius
    spread: float = 0.6  # standard deviation of the first round's knots
    soft_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("knots", "hold", "candidates", "rounds", "elites", "replan"):
            if getattr(self, name) < 1:
                raise ValueError(f"MPCConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.elites > self.candidates:
            raise ValueError(f"MPCConfig: {self.elites=} exceeds {self.candidates=}")

    @property
    def horizon(self) -> int:
        """Control steps that a plan covers."""
        return self.knots * self.hold


class Judge(Protocol):
    """What a plan is worth; `safety.controllers.judge.PlanJudge` for goals, `CircleJudge` for the Circle tasks."""

    def cost(self, states: NDArray[np.floating]) -> Floats:
        """Cost [C] of state sequences [C, T, 6]; lower is better."""
        ...


class SamplingMPC:
    """Plans for one agent. `reset` before each episode; `act` returns an action [2] for the current scene."""

    def __init__(self, dynamics: Dynamics, config: MPCConfig | None = None) -> None:
        self.dynamics = dynamics
        self.config = config or MPCConfig()
        self.reset(seed=0)

    def reset(self, *, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._mean = np.zeros((self.config.knots, 2), dtype=np.float32)
        self._plan = np.zeros((0, 2), dtype=np.float32)
        self._used = 0
        self._fields = FieldCache()

    @property
    def rest(self) -> Floats:
        """Actions [T, 2] of the last plan from the one that `act` returned last."""
        return self._plan[max(self._used - 1, 0) :]

    def act(self, scene: Scene, sub_goal: SubGoal | Judge) -> Floats:
        """The next action [2]; replans every `config.replan` steps."""
        if self._used >= min(self.config.replan, len(self._plan)):
            self._plan = self.plan(scene, sub_goal)
            self._used = 0
        action = self._plan[self._used]
        self._used += 1
        return action

    def plan(self, scene: Scene, sub_goal: SubGoal | Judge, *, elapsed: int | None = None) -> Floats:
        """Actions [horizon, 2] from the current scene; `elapsed` control steps since the last plan (warm start).

        Instead of a sub-goal, anything that judges roll-outs.
        """
        config = self.config
        judge: Judge
        if isinstance(sub_goal, SubGoal):
            goal = objective(scene, sub_goal)
            judge = PlanJudge(goal, self._fields, margin=config.margin, soft_weight=config.soft_weight)
        else:
            judge = sub_goal
        mean = self._shifted(self._used if elapsed is None else elapsed)
        spread = np.full_like(mean, config.spread)
        start = scene.state.astype(np.float32)
        best_cost, best = np.inf, mean
        for round_index in range(config.rounds):
            noise = self._rng.standard_normal((config.candidates, config.knots, 2), dtype=np.float32)
            knots = np.clip(mean + spread * noise, -1, 1)
            knots[0] = mean
            if round_index == 0:
                knots[1] = 0
                knots[2 : 2 + len(_PRIMITIVES)] = _PRIMITIVES[:, None, :]
            cost = self._cost(start, np.repeat(knots, config.hold, axis=1), judge)
            order = np.argpartition(cost, config.elites)[: config.elites]
            elites = knots[order]
            mean, spread = elites.mean(0), elites.std(0) + 0.05
            top = int(order[np.argmin(cost[order])])
            if cost[top] < best_cost:
                best_cost, best = float(cost[top]), knots[top]
        # The mean of the elites is smoother than the best sample: take it where it costs no more.
        if self._cost(start, np.repeat(mean[None], config.hold, axis=1), judge)[0] <= 1.01 * best_cost:
            best = mean
        self._mean = best
        return self.dynamics.command(np.repeat(best, config.hold, axis=0))

    def _shifted(self, elapsed: int) -> Floats:
        """The last plan's knots, moved on by the steps that have passed."""
        dense = np.repeat(self._mean, self.config.hold, axis=0)
        elapsed = min(elapsed, len(dense))
        dense = np.concatenate([dense[elapsed:], np.repeat(dense[-1:], elapsed, axis=0)])
        return dense.reshape(self.config.knots, self.config.hold, 2).mean(1).astype(np.float32)

    def _cost(self, start: Floats, effective: Floats, judge: Judge) -> Floats:
        """Cost [C] of motor commands `effective` [C, T, 2]: time to the target, clearance, effort."""
        states = self.dynamics.rollout(start, self.dynamics.command(effective))
        return judge.cost(states) + np.float32(1e-3) * (effective**2).mean((1, 2))


# Constant commands worth trying whatever the last plan was: they get the search out of a standstill.
_PRIMITIVES = np.array([(1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1)], dtype=np.float32)

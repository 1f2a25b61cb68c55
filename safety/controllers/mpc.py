"""Sampling model-predictive control on the fitted dynamics: the ceiling that learned planners are measured against.

Cross-entropy over knots of motor commands (Rubinstein & Kroese, 2004; warm-started as in Pinneri et al., iCEM, 2020),
scored by the time to the target along the shortest way around the obstacles and by clearance. Its knobs (margin,
candidates, noise) also make it a behaviour policy with a spread of skill and risk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety.controllers.geodesic import GeodesicField, geodesic_field
from safety.controllers.objective import Objective, SubGoal, objective
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
        self._field_key: bytes | None = None
        self._field: GeodesicField | None = None

    def act(self, scene: Scene, sub_goal: SubGoal) -> Floats:
        """The next action [2]; replans every `config.replan` steps."""
        if self._used >= min(self.config.replan, len(self._plan)):
            self._plan = self.plan(scene, sub_goal)
            self._used = 0
        action = self._plan[self._used]
        self._used += 1
        return action

    def plan(self, scene: Scene, sub_goal: SubGoal, *, elapsed: int | None = None) -> Floats:
        """Actions [horizon, 2] from the current scene; `elapsed` control steps since the last plan (warm start)."""
        goal = objective(scene, sub_goal)
        if goal.target is None:
            # Out of the lidar's range: head for the middle of what is in view, where the arena is.
            middle = scene.positions.mean(0) if len(scene.positions) else scene.state[:2]
            goal = Objective(middle, 0.1, False, goal.hard_centers, goal.hard_radii, goal.soft_centers, goal.soft_radii)
        field = self._distance(goal)
        config = self.config
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
            cost = self._cost(start, np.repeat(knots, config.hold, axis=1), goal, field)
            order = np.argpartition(cost, config.elites)[: config.elites]
            elites = knots[order]
            mean, spread = elites.mean(0), elites.std(0) + 0.05
            top = int(order[np.argmin(cost[order])])
            if cost[top] < best_cost:
                best_cost, best = float(cost[top]), knots[top]
        # The mean of the elites is smoother than the best sample: take it where it costs no more.
        if self._cost(start, np.repeat(mean[None], config.hold, axis=1), goal, field)[0] <= 1.01 * best_cost:
            best = mean
        self._mean = best
        return self.dynamics.command(np.repeat(best, config.hold, axis=0))

    def _shifted(self, elapsed: int) -> Floats:
        """The last plan's knots, moved on by the steps that have passed."""
        dense = np.repeat(self._mean, self.config.hold, axis=0)
        elapsed = min(elapsed, len(dense))
        dense = np.concatenate([dense[elapsed:], np.repeat(dense[-1:], elapsed, axis=0)])
        return dense.reshape(self.config.knots, self.config.hold, 2).mean(1).astype(np.float32)

    def _distance(self, goal: Objective) -> GeodesicField:
        assert goal.target is not None
        centers = np.vstack([goal.hard_centers, goal.soft_centers])
        radii = np.concatenate([goal.hard_radii + self.config.margin + 0.02, goal.soft_radii + 0.1])
        key = np.round(np.concatenate([goal.target, centers.ravel(), radii]), 2).tobytes()
        if key != self._field_key or self._field is None:
            self._field = geodesic_field(goal.target, centers, radii)
            self._field_key = key
        return self._field

    def _cost(self, start: Floats, effective: Floats, goal: Objective, field: GeodesicField) -> Floats:
        """Cost [C] of motor commands `effective` [C, T, 2]: time to the target, clearance, effort."""
        states = self.dynamics.rollout(start, self.dynamics.command(effective))
        path = states[..., :2]
        inside = 0.25 * goal.radius if goal.dwell else goal.radius - 0.03
        away = np.maximum(field(path) - np.float32(inside), 0)
        if not goal.dwell:
            away = np.where(np.logical_or.accumulate(away <= 0, axis=1), 0, away)  # what comes after does not matter
        speed = np.hypot(states[..., 3], states[..., 4])
        cost = away.mean(1) + away[:, -1]
        if goal.dwell:
            cost = cost + 0.1 * (speed * (away <= 0)).mean(1)
        cost = cost + _proximity(path, goal.hard_centers, goal.hard_radii, self.config.margin, 30.0)
        cost = cost + _proximity(path, goal.soft_centers, goal.soft_radii, 0.1, self.config.soft_weight)
        return (cost + 1e-3 * (effective**2).mean((1, 2))).astype(np.float32)


# Constant commands worth trying whatever the last plan was: they get the search out of a standstill.
_PRIMITIVES = np.array([(1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1)], dtype=np.float32)


def _proximity(
    path: Floats, centers: NDArray[np.float64], radii: NDArray[np.float64], margin: float, weight: float
) -> Floats:
    """Penalty [C] for steps of `path` [C, T, 2] closer than `margin` to discs: depth plus a fixed price per step."""
    total = np.zeros(path.shape[0], dtype=np.float32)
    for center, radius in zip(centers.astype(np.float32), radii, strict=True):
        limit = np.float32(radius + margin)
        offset = path - center
        squared = offset[..., 0] ** 2 + offset[..., 1] ** 2
        hit = squared < limit * limit
        if hit.any():
            depth = np.where(hit, 0.02 + limit - np.sqrt(squared), 0)
            total += np.float32(weight) * depth.mean(1)
    return total

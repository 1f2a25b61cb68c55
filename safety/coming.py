"""Obstacles of which some move, and how near paths come to them when."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from safety.buttons import GOAL_GATE
from safety.motion import advance

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """What is assumed of moving obstacles.

    Attributes:
        acceleration: m/s^2 by which one may change its velocity.
        turning_acceleration: the same of one whose turn is known (`safety.motion`): what its velocity is mistaken by.
        slowest: m/s below which an obstacle counts as standing.
        horizon: s over which its motion is predicted; it stays where it is then. A known turn goes on beyond, with no
            more doubt than after the horizon.
        goal_gate: m, a button this near to the goal is the goal.
    """

    acceleration: float = 0.35
    turning_acceleration: float = 0.05
    slowest: float = 0.02
    horizon: float = 1.0
    goal_gate: float = GOAL_GATE

    def __post_init__(self) -> None:
        for name in ("acceleration", "turning_acceleration", "slowest", "horizon", "goal_gate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"MotionConfig.{name} must be a finite number >= 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Coming:
    """Discs that stand or move, margins included."""

    centers: Floats  # [N, 2] m
    velocities: Floats  # [N, 2] m/s
    rates: Floats  # [N] rad/s at which the velocities turn
    wandering: Floats  # [N] m/s at which it may go anywhere: of what moves in a direction that is not known
    radii: Floats  # [N] m
    hard: NDArray[np.bool_]  # [N]
    motion: MotionConfig

    def gaps(self, paths: Floats, times: Floats) -> Floats:
        """Clearances [C, T, N] of paths [C, T, 2] whose waypoints are passed at `times` [T] (s from now)."""
        early = np.minimum(times, self.motion.horizon)[:, None]
        there = self.centers + advance(self.velocities, self.rates, np.where(self._turns, times[:, None], early))
        dx = paths[:, :, 0, None] - there[:, :, 0]
        dy = paths[:, :, 1, None] - there[:, :, 1]
        spread = self.wandering * early + 0.5 * self._doubt * early**2
        return np.asarray(np.sqrt(dx * dx + dy * dy) - spread - self.radii)

    def standing(self, points: Floats) -> Floats:
        """Clearances [C, N] of whoever stays at `points` [C, 2] for good; infinite from what goes otherwise."""
        found = np.full((len(points), len(self.centers)), np.inf)
        for index in np.flatnonzero(self._turns & self._moves):
            (vx, vy), rate = self.velocities[index], self.rates[index]
            middle = self.centers[index] + np.array([-vy, vx]) / rate
            off_circle = np.abs(np.hypot(*(points - middle).T) - np.hypot(vx, vy) / abs(rate))
            found[:, index] = off_circle - 0.5 * self._doubt[index] * self.motion.horizon**2 - self.radii[index]
        return found

    @cached_property
    def _turns(self) -> NDArray[np.bool_]:
        return self.rates != 0

    @cached_property
    def _moves(self) -> NDArray[np.bool_]:
        return np.asarray((self.velocities != 0).any(1))

    @cached_property
    def _doubt(self) -> Floats:
        """m/s^2 [N] by which velocities may change otherwise than known."""
        doubt = np.where(self._turns, self.motion.turning_acceleration, self.motion.acceleration)
        return np.where(self._moves, doubt, 0.0)

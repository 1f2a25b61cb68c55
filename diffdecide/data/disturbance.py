"""Disturbances that take a behaviour policy where it would not go by itself, so that data show the way back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety.controllers.objective import SubGoal
from safety.controllers.proportional import ProportionalController
from safety.dynamics import Dynamics
from safety.scene import KIND_ID, Scene

_LENGTH = (8, 40)  # control steps that one disturbance lasts


class Disturbance:
    """Takes over for a `share` of the steps: holds a random command, or drives at the nearest hazard and stops there.

    The second leaves the agent at rest with a hazard right before it, the state in which planners that never saw it
    get stuck.
    """

    def __init__(self, dynamics: Dynamics, rng: np.random.Generator, *, share: float, beside_hazards: float) -> None:
        self.dynamics = dynamics
        self.rng = rng
        mean = sum(_LENGTH) / 2
        self._start = share / (mean * (1 - share) + 1e-9) if share < 1 else 1.0
        self._beside_hazards = beside_hazards
        self._left = 0
        self._held: NDArray[np.float64] | None = None
        self._approach = ProportionalController(dynamics)

    def apply(self, action: NDArray[np.float64], scene: Scene, *, noise: float) -> NDArray[np.float64]:
        """The action to execute in place of `action` [2]: disturbed, or with Gaussian noise in motor commands."""
        if self._left == 0 and self.rng.random() < self._start:
            self._left = int(self.rng.integers(*_LENGTH))
            beside = self.rng.random() < self._beside_hazards
            self._held = None if beside else self.rng.uniform(-1, 1, 2)
            self._gap = float(self.rng.uniform(0.0, 0.12))
        if self._left == 0:
            effective = self.dynamics.effective(action) + noise * self.rng.standard_normal(2)
            return np.asarray(self.dynamics.command(np.clip(effective, -1, 1)))
        self._left -= 1
        if self._held is not None:
            return np.asarray(self.dynamics.command(self._held))
        return self._towards_hazard(scene)

    def _towards_hazard(self, scene: Scene) -> NDArray[np.float64]:
        hazards = scene.of_kind("hazards", "gremlins", "pillars")
        if not len(hazards):
            return np.zeros(2)
        gaps = np.linalg.norm(scene.positions[hazards] - scene.state[:2], axis=1) - scene.radii[hazards]
        nearest = hazards[int(np.argmin(gaps))]
        speed = float(self.dynamics.forward_speed(scene.state))
        if gaps.min() < self._gap + self.dynamics.stopping_distance(speed):
            brake = np.float64(np.clip(-speed / self.dynamics.gain, -1, 1))
            return np.asarray(self.dynamics.command(self.dynamics.motors(brake, np.float64(0))))
        only = Scene(
            state=scene.state,
            positions=scene.positions[[nearest]],
            velocities=scene.velocities[[nearest]],
            kinds=np.array([KIND_ID["goal"]]),
            radii=scene.radii[[nearest]],
            sigma=scene.sigma[[nearest]],
        )
        return np.asarray(self._approach.act(only, SubGoal(target="goal")), dtype=np.float64)

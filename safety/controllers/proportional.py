"""The simplest controller that works: turn towards the target and drive. The lower end of every table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety.controllers.objective import SubGoal, objective
from safety.dynamics import Dynamics
from safety.scene import Scene


class ProportionalController:
    """Steers at the target and ignores everything else."""

    def __init__(self, dynamics: Dynamics, *, turn_gain: float = 2.0) -> None:
        self.dynamics = dynamics
        self.turn_gain = turn_gain

    def reset(self, *, seed: int) -> None:
        """Nothing to forget."""

    def act(self, scene: Scene, sub_goal: SubGoal) -> NDArray[np.float32]:
        """Action [2] towards the target."""
        goal = objective(scene, sub_goal)
        offset = goal.target - scene.state[:2]
        distance = float(np.hypot(*offset))
        heading = scene.state[2] + self.dynamics.forward_offset
        bearing = (np.arctan2(offset[1], offset[0]) - heading + np.pi) % (2 * np.pi) - np.pi
        turn = np.clip(self.turn_gain * bearing, -1, 1)
        thrust = max(0.0, float(np.cos(bearing)))
        if goal.dwell and distance < 0.5 * goal.radius:
            speed = float(self.dynamics.forward_speed(scene.state))
            thrust = float(np.clip(-4 * speed, -1, 1))
        return self.dynamics.command(self.dynamics.motors(np.float32(thrust), np.float32(turn))).astype(np.float32)

"""What the Circle tasks pay for, as a judge for the sampling MPC: going round fast, near the circle, within the walls.

Reward per step (Safety-Gymnasium 1.0, `CircleLevel0.calculate_reward`): 0.1 (x v - y u) / r / (1 + |r - R|) about the
circle's centre.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safety.constraints import HalfSpace
from safety.scene import Scene

Floats = NDArray[np.float32]


class CircleJudge:
    """Judges roll-outs by the task's reward; `walls` are kept `margin` [m] away from.

    Raises:
        ValueError: no circle in the scene.
    """

    def __init__(self, scene: Scene, walls: Sequence[HalfSpace], *, margin: float, wall_weight: float = 30.0) -> None:
        circle = scene.of_kind("circle")
        if not len(circle):
            raise ValueError("CircleJudge: the scene holds no circle to go round")
        self._centre, self._radius = scene.positions[circle[0]], float(scene.radii[circle[0]])
        self._walls = [(np.asarray(wall.normal), float(wall.offset) - float(wall.margin) - margin) for wall in walls]
        self._weight = wall_weight

    def cost(self, states: NDArray[np.floating]) -> Floats:
        """Cost [C] of state sequences [C, T, 6]: minus the mean reward rate in m/s, plus depth behind the walls."""
        x, y = states[..., 0] - self._centre[0], states[..., 1] - self._centre[1]
        radius = np.maximum(np.hypot(x, y), 1e-3)
        rate = (x * states[..., 4] - y * states[..., 3]) / radius / (1.0 + np.abs(radius - self._radius))
        cost = -rate.mean(-1)
        for normal, offset in self._walls:
            depth = states[..., 0] * normal[0] + states[..., 1] * normal[1] - offset
            cost = cost + self._weight * np.where(depth > 0, depth + 0.02, 0.0).mean(-1)
        return np.asarray(cost, dtype=np.float32)

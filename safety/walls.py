"""Boundaries that no lidar sees: where they stand in the frame of a scene.

The Circle tasks charge for leaving a strip (Circle1: |x| <= 1.125 m) or a square (Circle2) around the world's origin.
The circle's own lidar gives the origin away, and the magnetometer the direction of the world's axes.
"""

from __future__ import annotations

import math

import numpy as np

from safety.constraints import HalfSpace
from safety.layout import EnvSpec
from safety.odometry import MIN_FIELD, heading_from_magnetometer
from safety.scene import Scene

CIRCLE_LIMIT = 1.125  # m from the origin, `sigwalls.locate_factor` of the Circle tasks


class Walls:
    """The walls of one task, if it has any."""

    def __init__(self, spec: EnvSpec) -> None:
        self.present = "sigwalls" in spec.costly
        self._axes = 1 if "Circle1" in spec.id else 2
        layout = spec.layout
        self._field = layout["magnetometer"] if layout is not None and "magnetometer" in layout else None
        self.reset()

    def reset(self) -> None:
        """Forget where the walls were."""
        self._known: tuple[float, float, float] | None = None

    def world(self) -> tuple[HalfSpace, ...]:
        """The walls in the simulator's world frame, for ground-truth scenes."""
        return self._around(0.0, 0.0, 0.0) if self.present else ()

    def decoded(self, scene: Scene, observation: np.ndarray) -> tuple[HalfSpace, ...]:
        """The walls in the frame of a decoded scene; the last known ones while the circle is out of view.

        Raises:
            ValueError: the task has walls, but no magnetometer to find their direction with.
        """
        if not self.present:
            return ()
        if self._field is None:
            raise ValueError("walls cannot be located: the observation has no magnetometer")
        centre = scene.of_kind("circle")
        field = np.asarray(observation, dtype=np.float64)[self._field]
        if len(centre) and math.hypot(field[0], field[1]) > MIN_FIELD:
            turn = float(scene.state[2]) - heading_from_magnetometer(float(field[0]), float(field[1]))
            self._known = (float(scene.positions[centre[0], 0]), float(scene.positions[centre[0], 1]), turn)
        return () if self._known is None else self._around(*self._known)

    def _around(self, x: float, y: float, turn: float) -> tuple[HalfSpace, ...]:
        walls = []
        for axis in range(self._axes):
            angle = turn + axis * math.pi / 2
            normal = np.array([math.cos(angle), math.sin(angle)])
            reach = float(normal @ (x, y))
            walls += [HalfSpace(normal, reach + CIRCLE_LIMIT), HalfSpace(-normal, CIRCLE_LIMIT - reach)]
        return tuple(walls)

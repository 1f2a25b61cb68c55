"""Ego-motion from the agent's own sensors: where it is relative to where it was at reset.

The velocimeter reads the body-frame velocity, the magnetometer the constant world field seen from the body, so the
heading is absolute and does not drift; only the position does, and landmarks correct it (`safety.perception`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TWO_PI = 2.0 * math.pi
MIN_FIELD = 1e-6  # below this the horizontal magnetic field gives no heading


def wrap(angle: float) -> float:
    """`angle` [rad] in (-pi, pi]."""
    return math.pi - (math.pi - angle) % TWO_PI


def heading_from_magnetometer(field_x: float, field_y: float) -> float:
    """World yaw [rad] from the body-frame field, for MuJoCo's default world field (0, -0.5, 0)."""
    return math.atan2(-field_x, -field_y)


class Odometry:
    """Pose and velocity in the frame whose origin is the agent's pose at the first reading after `reset()`.

    Position integrates the world-frame velocity by the trapezoid rule. `yaw` is unwrapped (continuous). Where the
    horizontal magnetic field vanishes the gyro carries the heading on, also by trapezoid.
    """

    def __init__(self, dt: float) -> None:
        if not (math.isfinite(dt) and dt > 0):
            raise ValueError(f"Odometry: expected dt > 0 s, got {dt=}")
        self.dt = dt
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next reading is the origin."""
        self.x = self.y = self.yaw = 0.0
        self.vx = self.vy = self.yaw_rate = 0.0
        self.cos, self.sin = 1.0, 0.0
        self._offset: float | None = None
        self._started = False

    def update(
        self, velocity: Sequence[float], yaw_rate: float, magnetic_field: Sequence[float] | None
    ) -> tuple[float, float]:
        """Advance one control step.

        Args:
            velocity: body-frame velocity, m/s, x and y first.
            yaw_rate: rad/s, about the vertical.
            magnetic_field: body-frame field, x and y first; None without a magnetometer.

        Returns:
            The displacement (dx, dy) of this step in the odometric frame, m.
        """
        gyro_yaw = self.yaw + 0.5 * (self.yaw_rate + yaw_rate) * self.dt if self._started else 0.0
        yaw = gyro_yaw
        if magnetic_field is not None and math.hypot(magnetic_field[0], magnetic_field[1]) > MIN_FIELD:
            heading = heading_from_magnetometer(magnetic_field[0], magnetic_field[1])
            if self._offset is None:
                self._offset = heading - gyro_yaw
            yaw = gyro_yaw + wrap(heading - self._offset - gyro_yaw)
        cos, sin = math.cos(yaw), math.sin(yaw)
        vx = cos * velocity[0] - sin * velocity[1]
        vy = sin * velocity[0] + cos * velocity[1]
        dx = dy = 0.0
        if self._started:
            dx = 0.5 * (self.vx + vx) * self.dt
            dy = 0.5 * (self.vy + vy) * self.dt
        self.x += dx
        self.y += dy
        self.yaw, self.yaw_rate, self.cos, self.sin = yaw, yaw_rate, cos, sin
        self.vx, self.vy = vx, vy
        self._started = True
        return dx, dy

    def shift(self, dx: float, dy: float) -> None:
        """Correct the position by what landmarks say, m."""
        self.x += dx
        self.y += dy

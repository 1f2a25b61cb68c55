"""Poses of the agent along an episode from its own sensors alone, so that any DSRL data set has geometry.

The vectorised form of `safety.odometry.Odometry`, and the same convention: the velocimeter gives the velocity in the
body frame, the magnetometer an absolute heading without drift, the gyro the heading where there is no field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from diffdecide.data.episode import Episode
from safety.odometry import MIN_FIELD


class Layout(Protocol):
    """Sensor name -> slice of the flat observation; `safety.layout.ObservationLayout`, or a dictionary."""

    def __getitem__(self, name: str, /) -> slice: ...
    def __contains__(self, name: object, /) -> bool: ...


def has_ego_motion(layout: Layout | Mapping[str, slice] | None) -> bool:
    """Whether the observation holds what `poses` needs."""
    return layout is not None and "velocimeter" in layout and ("magnetometer" in layout or "gyro" in layout)


def poses(episode: Episode, layout: Layout | Mapping[str, slice], dt: float) -> np.ndarray:
    """Poses x [m], y [m], yaw [rad, unwrapped] before each step and behind the last one, [T + 1, 3] float32.

    The frame is the pose at the first step. Positions by the trapezoid rule.

    Args:
        layout: where "velocimeter" and "magnetometer" or "gyro" lie in the observation
        dt: seconds per control step

    Raises:
        ValueError: sensors missing, or dt <= 0
    """
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt: expected > 0 s, got {dt}")
    if not has_ego_motion(layout):
        raise ValueError("layout: expected 'velocimeter' and one of 'magnetometer', 'gyro' in the observation")
    observations = np.concatenate([episode.observations, episode.next_observations[-1:]]).astype(np.float64)
    velocity = observations[:, layout["velocimeter"]]
    yaw = _yaw(observations, layout, dt)
    cos, sin = np.cos(yaw), np.sin(yaw)
    vx = cos * velocity[:, 0] - sin * velocity[:, 1]
    vy = sin * velocity[:, 0] + cos * velocity[:, 1]
    result = np.zeros((len(observations), 3))
    result[1:, 0] = np.cumsum(0.5 * dt * (vx[1:] + vx[:-1]))
    result[1:, 1] = np.cumsum(0.5 * dt * (vy[1:] + vy[:-1]))
    result[:, 2] = yaw
    return result.astype(np.float32)


def _yaw(observations: np.ndarray, layout: Layout | Mapping[str, slice], dt: float) -> np.ndarray:
    """[T + 1] rad, 0 at the first step."""
    yaw = np.zeros(len(observations))
    if "gyro" in layout:
        rate = observations[:, layout["gyro"]][:, 2]
        yaw[1:] = np.cumsum(0.5 * dt * (rate[1:] + rate[:-1]))
    if "magnetometer" in layout:
        field = observations[:, layout["magnetometer"]]
        heading = np.unwrap(np.arctan2(-field[:, 0], -field[:, 1]))
        if (np.hypot(field[:, 0], field[:, 1]) > MIN_FIELD).all():
            return heading - heading[0]
        if "gyro" not in layout:
            raise ValueError("magnetometer: expected a horizontal field at every step, got none, and there is no gyro")
    return yaw


def relative(pose: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """`pose` [..., 3] in the frame of `origin` [..., 3] as x, y [m], cos yaw, sin yaw: [..., 4]."""
    delta = pose - origin
    cos, sin = np.cos(origin[..., 2]), np.sin(origin[..., 2])
    return np.stack(
        [
            cos * delta[..., 0] + sin * delta[..., 1],
            cos * delta[..., 1] - sin * delta[..., 0],
            np.cos(delta[..., 2]),
            np.sin(delta[..., 2]),
        ],
        axis=-1,
    )

"""What a lidar ring proves, whatever a tracker makes of it: something is there, at this distance, in this sector.

A bin that reads no less than its neighbours holds an object of its own, at exactly the distance that it reads, and the
neighbours bound where in the bin it is (`safety.lidar`). A tracker that is undecided between two explanations may drop
both for a step; to a filter the proof counts. Only for rings without noise: a lost or disturbed reading proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safety.layout import LIDAR_SUFFIX, EnvSpec
from safety.scene import KIND_ID, Scene


@dataclass(frozen=True)
class Claim:
    """Something stands `distance` [m] away, at a bearing (rad, body frame) within `half` of `bearing`."""

    distance: float
    bearing: float
    half: float


def claims(values: Sequence[float], max_dist: float, reach: float) -> list[Claim]:
    """What a ring [bins] proves within `reach` [m]; `max_dist` [m] is the lidar's range.

    Raises:
        ValueError: fewer than three bins.
    """
    bins = len(values)
    if bins < 3:
        raise ValueError(f"claims: expected at least 3 bins, got {bins}")
    width = 2.0 * math.pi / bins
    found = []
    for index, value in enumerate(values):
        distance = max_dist * (1.0 - value)
        if value <= 0.0 or distance > reach:
            continue
        before, after = values[index - 1], values[(index + 1) % bins]
        if value < before or value < after:
            continue
        low, high = max(0.0, 1.0 - before / value), min(1.0, after / value)
        if low > high:
            low = high = (low + high) / 2  # rounding
        found.append(Claim(distance, (index + (low + high) / 2) * width, (high - low) / 2 * width))
    return found


class ClaimedObstacles:
    """Adds to a decoded scene what its own observation proves and the scene does not hold. One per environment."""

    def __init__(
        self, spec: EnvSpec, kinds: Sequence[str], *, reach: float = 1.5, tolerance: float = 0.03, step: float = 0.06
    ) -> None:
        """
        Args:
            kinds: of objects that matter.
            reach: m, what is further away can wait.
            tolerance: m by which an object of the scene may be off and still be the one that is claimed.
            step: rad, a claim that is less certain than this becomes several objects.
        """
        self._tolerance, self._step, self._reach = tolerance, step, reach
        self._max_dist = float(spec.lidar_max_dist or 0.0)
        layout = spec.layout
        exact = not spec.lidar_noise and not spec.lidar_dropout
        known = layout is not None and exact and self._max_dist > 0
        self._rings = [
            (layout[kind + LIDAR_SUFFIX], KIND_ID[kind], float(spec.radii[kind]))
            for kind in kinds
            if known and layout is not None and kind + LIDAR_SUFFIX in layout and kind in spec.radii
        ]

    def added(self, scene: Scene, observation: np.ndarray) -> Scene:
        """`scene` with what is missing from it; where nothing is, the very scene."""
        missing = [
            (x, y, kind, radius, sigma)
            for where, kind, radius in self._rings
            for x, y, sigma in self._unexplained(scene, kind, observation[where].tolist())
        ]
        if not missing:
            return scene
        table = np.array(missing, dtype=np.float64)
        velocities = [_velocity_near(scene, row[:2], int(row[2])) for row in table]
        return Scene(
            state=scene.state,
            positions=np.concatenate([scene.positions, table[:, :2]]),
            velocities=np.concatenate([scene.velocities, np.array(velocities)]),
            kinds=np.concatenate([scene.kinds, table[:, 2].astype(np.int64)]),
            radii=np.concatenate([scene.radii, table[:, 3]]),
            sigma=np.concatenate([scene.sigma, table[:, 4]]),
        )

    def _unexplained(self, scene: Scene, kind: int, values: list[float]) -> list[tuple[float, float, float]]:
        """Positions and their standard deviations (m) of what the ring proves and no object of the scene explains."""
        proven = claims(values, self._max_dist, self._reach)
        if not proven:
            return []
        x, y, yaw = (float(value) for value in scene.state[:3])
        offsets = scene.positions[scene.kinds == kind] - scene.state[:2]
        distances = np.hypot(offsets[:, 0], offsets[:, 1])
        bearings = np.arctan2(offsets[:, 1], offsets[:, 0]) - yaw
        found = []
        for claim in proven:
            off = np.abs((bearings - claim.bearing + math.pi) % (2 * math.pi) - math.pi)
            sideways = np.maximum(off - claim.half, 0.0) * claim.distance
            if ((np.abs(distances - claim.distance) <= self._tolerance) & (sideways <= self._tolerance)).any():
                continue
            count = max(1, math.ceil(claim.half / self._step))
            part = claim.half / count
            for number in range(count):
                angle = yaw + claim.bearing - claim.half + (2 * number + 1) * part
                found.append(
                    (x + claim.distance * math.cos(angle), y + claim.distance * math.sin(angle), part * claim.distance)
                )
        return found


def _velocity_near(scene: Scene, position: np.ndarray, kind: int, *, gate: float = 0.4) -> np.ndarray:
    """Velocity [2] of the nearest object of `kind` within `gate` [m]: what flickers is most likely the same one."""
    index = np.flatnonzero(scene.kinds == kind)
    gaps = np.hypot(*(scene.positions[index] - position).T)
    if not len(gaps) or gaps.min() > gate:
        return np.zeros(2)
    return np.asarray(scene.velocities[index[int(gaps.argmin())]])

"""What one lidar ring says: the reading of known objects, and what can be read back exactly.

A ring of `n` bins reports, per bin, the largest of the contributions of all objects of one kind. An object at
distance d and bearing phi = (b + a) * 2 pi / n (bin b, sub-bin fraction a) with closeness s = max(0, 1 - d / range)
contributes s to bin b, a*s to bin b + 1 and (1 - a)*s to bin b - 1 (Safety-Gymnasium 1.0, `_obs_lidar_pseudo`).
So where nothing masks them the two neighbours of a bin add up to it, and position is recovered to machine precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

SUM_TOLERANCE = 2e-6  # float32 readings: three roundings of values below one


def lidar_reading(positions: Iterable[Sequence[float]], max_dist: float, bins: int = 16) -> list[float]:
    """The ring [bins] that objects at body-frame `positions` [N, 2] (m) produce. `max_dist` in m."""
    if bins < 3:
        raise ValueError(f"lidar_reading: expected at least 3 bins, got {bins=}")
    values = [0.0] * bins
    for x, y in positions:
        closeness = 1.0 - math.hypot(x, y) / max_dist
        if closeness <= 0.0:
            continue
        turn = (math.atan2(y, x) / (2.0 * math.pi) % 1.0) * bins
        index = int(turn) % bins
        alias = turn - int(turn)
        after, before = (index + 1) % bins, index - 1
        values[index] = max(values[index], closeness)
        values[after] = max(values[after], alias * closeness)
        values[before] = max(values[before], (1.0 - alias) * closeness)
    return values


def exact_detections(values: Sequence[float], max_dist: float) -> list[tuple[float, float, int]]:
    """Objects whose distance and bearing a ring gives away exactly.

    Args:
        values: one ring [bins].
        max_dist: range of the lidar, m.

    Returns:
        Tuples (x, y, bin) in the body frame, m. A bin counts when its neighbours add up to it, which two unrelated
        objects do only by accident of measure zero.
    """
    bins = len(values)
    width = 2.0 * math.pi / bins
    found = []
    before = values[bins - 1]
    for index, value in enumerate(values):
        after = values[index + 1] if index + 1 < bins else values[0]
        if value > 1e-4 and -SUM_TOLERANCE < before + after - value < SUM_TOLERANCE:
            distance = max_dist * (1.0 - value)
            bearing = (index + after / (before + after)) * width
            found.append((distance * math.cos(bearing), distance * math.sin(bearing), index))
        before = value
    return found

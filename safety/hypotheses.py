"""Where an object may be that a lidar ring shows only in part.

A reading that no known object explains has three kinds of origin: an object in that bin at known distance (bearing
unknown within the bin), or an object in a neighbouring bin, hidden there behind a nearer one, whose sub-bin shadow
this is. Each is a curve in the plane. `HypothesisSet` holds cells along these curves, weighted by area (objects are
taken to be uniform in the plane), and lets every later reading remove those it contradicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SPACING = 0.02  # m, distance of neighbouring cells on a curve
MAX_CELLS = 48
SUPPORT = 4.0  # how much more likely a cell becomes with each otherwise unexplained reading it explains


def _curve(low: float, high: float, distance: float, width: float) -> np.ndarray:
    """Cells between two sub-bin fractions, ends included, about `SPACING` apart on the ground."""
    length = (high - low) * width * distance
    if length < 1e-3:
        return np.array([0.5 * (low + high)])
    return np.linspace(low, high, int(min(MAX_CELLS, 2 + length / SPACING)))


def candidate_cells(
    values: Sequence[float], index: int, max_dist: float, unexplained: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Cells that explain `values[index]` and contradict nothing else in the ring.

    Args:
        values: one ring [bins].
        index: the bin to explain.
        max_dist: m.
        unexplained: [bins], readings that no known object explains. One object that explains two of them is likelier
            than two objects, so the end of a curve that does so weighs `SUPPORT` times the whole curve.

    Returns:
        Body-frame positions [M, 2] in m, weights [M] (m^2 per reading, not normalised), and the largest distance
        between neighbouring cells in m. M is 0 where no single object can have produced the reading.
    """
    bins = len(values)
    width = 2.0 * math.pi / bins
    value = values[index]
    before, after = values[index - 1], values[(index + 1) % bins]
    turns: list[np.ndarray] = []
    closeness: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    spacing = 0.0

    def add(low: float, high: float, base: int, shadow: int, at_low: bool, at_high: bool) -> None:
        """One curve; `shadow` 0: own bin, 1: shadow cast on the bin after, -1: on the bin before.

        `at_low`, `at_high`: the end explains a second reading.
        """
        nonlocal spacing
        cells = _curve(low, high, max_dist * (1.0 - value), width)
        near = np.full_like(cells, value) if shadow == 0 else value / cells
        reach = max_dist * (1.0 - near)
        share = (high - low) / len(cells)
        turns.append(base + (1.0 - cells if shadow < 0 else cells))
        closeness.append(near)
        weight = reach * width * share * max_dist / (1.0 if shadow == 0 else cells)
        bonus = SUPPORT * float(weight.sum())
        if at_low:
            weight[0] += bonus
        if at_high:
            weight[-1] += bonus
        weights.append(weight)
        ends = np.hypot(np.diff(reach), reach[1:] * width * share)
        spacing = max(spacing, float(ends.max()) if len(ends) else float(reach[0] * width * share))

    low, high = max(0.0, 1.0 - before / value), min(1.0, after / value)
    if low <= high + 1e-5:
        add(low, max(low, high), index, 0, before > 0 and unexplained[index - 1], unexplained[(index + 1) % bins])
    if before > value:
        least = value / before
        low = max(least, value / (value + values[index - 2]))
        if low < 1.0:
            add(low, 1.0, index - 1, 1, low > least and unexplained[index - 2], False)
    if after > value:
        beyond = values[(index + 2) % bins]
        least = value / after
        low = max(least, value / (value + beyond))
        if low < 1.0:
            add(low, 1.0, index + 1, -1, low > least and unexplained[(index + 2) % bins], False)
    if not turns:
        return np.zeros((0, 2)), np.zeros(0), 0.0
    bearing = np.concatenate(turns) * width
    distance = max_dist * (1.0 - np.concatenate(closeness))
    cells = np.stack([distance * np.cos(bearing), distance * np.sin(bearing)], axis=1)
    return cells, np.concatenate(weights), spacing


@dataclass(frozen=True)
class Origin:
    """The reading that made something be supposed: an object that explains it takes the reason away."""

    x: float  # m, agent in the odometric frame
    y: float
    cos: float  # of the yaw
    sin: float
    bin: int
    value: float

    def explained_by(self, x: float, y: float, max_dist: float, bins: int, tolerance: float) -> bool:
        """Whether an object at (x, y) [m] would have produced the reading, within `tolerance` [m]."""
        dx, dy = x - self.x, y - self.y
        forward, left = self.cos * dx + self.sin * dy, self.cos * dy - self.sin * dx
        distance = math.hypot(forward, left)
        closeness = 1.0 - distance / max_dist
        scale = bins / (2.0 * math.pi)
        turn = (math.atan2(left, forward) * scale - self.bin) % bins
        if turn < 1.0:
            share = 1.0
        elif turn < 2.0:
            share = 2.0 - turn
        elif turn >= bins - 1.0:
            share = turn - (bins - 1.0)
        else:
            share = 0.0
        # turn counts from the lower edge of the reading's bin: an object one bin after casts (1 - alias), one bin
        # before casts alias
        slope = 0.0 if share == 1.0 else tolerance * scale / max(distance, tolerance) * closeness
        return abs(share * closeness - self.value) <= tolerance / max_dist + slope


class HypothesisSet:
    """Weighted cells [M, 2] in the odometric frame of which exactly one is near a static object."""

    __slots__ = ("age", "mean", "origin", "points", "sigma", "spacing", "weights")

    def __init__(self, points: np.ndarray, weights: np.ndarray, spacing: float, origin: Origin) -> None:
        self.origin = origin
        self.points = points
        self.weights = weights / weights.sum()
        self.spacing = spacing
        self.age = 0
        self._summarise()

    def _summarise(self) -> None:
        self.mean = self.weights @ self.points
        spread = self.points - self.mean
        self.sigma = math.sqrt(float(self.weights @ (spread * spread).sum(axis=1)))

    def drop_near(self, x: float, y: float, radius: float) -> bool:
        """Remove cells within `radius` [m] of an object that is already known; False if none is left."""
        delta = self.points - (x, y)
        return self._keep((delta * delta).sum(axis=1) > radius * radius)

    def _keep(self, alive: np.ndarray) -> bool:
        total = float(self.weights[alive].sum()) if alive.any() else 0.0
        if total <= 0.0:
            return False
        if not alive.all():
            self.points, self.weights = self.points[alive], self.weights[alive] / total
            self._summarise()
        return True

    def update(
        self,
        ring: np.ndarray,
        unexplained: np.ndarray,
        pose: tuple[float, float, float, float],
        max_dist: float,
        slack: float,
    ) -> np.ndarray | None:
        """Remove the cells that a new ring contradicts, favour those that explain what nothing else does.

        Args:
            ring: readings [bins].
            unexplained: bool [bins], readings that no known object explains.
            pose: x, y, cos(yaw), sin(yaw) of the agent in the odometric frame.
            max_dist: m.
            slack: odometric uncertainty, m.

        Returns:
            bool [bins]: unexplained readings that some living cell explains; None where no cell is left.
        """
        bins = len(ring)
        scale = bins / (2.0 * math.pi)
        x, y, cos, sin = pose
        delta = self.points - (x, y)
        forward = cos * delta[:, 0] + sin * delta[:, 1]
        left = cos * delta[:, 1] - sin * delta[:, 0]
        distance = np.hypot(forward, left)
        turn = (np.arctan2(left, forward) * scale) % bins
        index = turn.astype(np.int64) % bins
        alias = turn - np.floor(turn)
        half = 0.6 * self.spacing + slack
        blur = np.minimum(half * scale / np.maximum(distance, 1e-3), 1.0)
        closeness = 1.0 - distance / max_dist
        radial = half / max_dist
        low = np.maximum(closeness - radial, 0.0)
        shares = np.stack([np.ones_like(alias), alias, 1.0 - alias])
        where = np.stack([index, (index + 1) % bins, index - 1])
        # A cell near the edge of a bin may stand for an object across it: its own bin then only gets the shadow.
        edge = np.minimum(alias, 1.0 - alias)
        floor_share = np.maximum(shares - blur, 0.0)
        floor_share[0] = np.where(edge < blur, 1.0 - blur, 1.0)
        seen = ring[where]
        alive = (seen >= floor_share * low).all(axis=0)
        if not self._keep(alive):
            return None
        seen, where, shares = seen[:, alive], where[:, alive], shares[:, alive]
        closeness, blur = closeness[alive], blur[alive]
        open_readings = unexplained[where]
        explains = open_readings & (np.abs(seen - shares * closeness) <= radial + blur * closeness * (shares < 1.0))
        if explains.any():
            support = explains.sum(axis=0)
            if support.min() != support.max():
                self.weights = self.weights * SUPPORT**support
                self.weights /= self.weights.sum()
                self._summarise()
            covered = np.zeros(bins, dtype=bool)
            covered[where[explains]] = True
        else:
            covered = np.zeros(bins, dtype=bool)
        self.age += 1
        return covered

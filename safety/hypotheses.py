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

SPACING = 0.03  # m, first distance of neighbouring cells on a curve
FINEST = 2e-3  # m, cells are not split below this length
MAX_CELLS = 48
NEIGHBOURHOOD = 0.1  # m, cells this close count as the same place
UNLIKELY = 1e-4  # cells that weigh less than this share of the heaviest are given up
SUPPORT = 3.0  # how much likelier a cell becomes with each reading it explains that nothing known does


@dataclass(frozen=True)
class Curves:
    """Cells on curves in one body frame: an object in bin `base` at sub-bin fraction `share` +- `half`.

    Attributes:
        value: the reading that every cell explains.
        base: [M] bin of the object.
        shadow: [M] 0: the reading is the object's own; 1, -1: the shadow it casts on the bin after, before.
        share: [M] the sub-bin fraction that the reading depends on: alias for 0 and 1, 1 - alias for -1.
        half: [M] half the length of the cell, in `share`.
        weight: [M] area per unit of reading, m^2, not normalised.
    """

    value: float
    base: np.ndarray
    shadow: np.ndarray
    share: np.ndarray
    half: np.ndarray
    weight: np.ndarray

    def take(self, alive: np.ndarray) -> Curves:
        """The cells where the mask [M] is True."""
        return Curves(
            self.value, self.base[alive], self.shadow[alive], self.share[alive], self.half[alive], self.weight[alive]
        )

    def split(self, wide: np.ndarray) -> Curves:
        """Halve the cells where the mask [M] is True."""
        keep = ~wide
        quarter = 0.5 * self.half[wide]

        def join(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
            return np.concatenate([values[keep], low, high])

        share, weight = self.share[wide], 0.5 * self.weight[wide]
        return Curves(
            self.value,
            join(self.base, self.base[wide], self.base[wide]),
            join(self.shadow, self.shadow[wide], self.shadow[wide]),
            join(self.share, share - quarter, share + quarter),
            join(self.half, quarter, quarter),
            join(self.weight, weight, weight),
        )

    def place(self, max_dist: float, bins: int) -> tuple[np.ndarray, np.ndarray]:
        """Body-frame positions [M, 2] and half lengths [M] of the cells, m."""
        width = 2.0 * math.pi / bins
        cast = self.shadow != 0
        closeness = np.where(cast, self.value / np.maximum(self.share, 1e-6), self.value)
        distance = max_dist * (1.0 - closeness)
        bearing = (self.base + np.where(self.shadow < 0, 1.0 - self.share, self.share)) * width
        slope = np.where(cast, max_dist * closeness / np.maximum(self.share, 1e-6), 0.0)
        length = self.half * np.hypot(distance * width, slope)
        return np.stack([distance * np.cos(bearing), distance * np.sin(bearing)], axis=1), length


def candidate_cells(values: Sequence[float], index: int, max_dist: float, unexplained: Sequence[bool]) -> Curves | None:
    """Cells that explain `values[index]` and contradict nothing else in the ring.

    Args:
        values: one ring [bins].
        index: the bin to explain.
        max_dist: m.
        unexplained: [bins], readings that no known object explains. One object that explains two of them is likelier
            than two objects, so the end of a curve that does so weighs `SUPPORT` times the whole curve.

    Returns:
        The cells, or None where no single object can have produced the reading.
    """
    bins = len(values)
    width = 2.0 * math.pi / bins
    value = values[index]
    before, after = values[index - 1], values[(index + 1) % bins]
    rows: list[tuple[int, int, float, float, float]] = []

    def add(low: float, high: float, base: int, shadow: int, at_low: bool, at_high: bool) -> None:
        """One curve between two shares; `at_low`, `at_high`: that end explains a second reading."""
        middle = 0.5 * (low + high)
        closeness = value / middle if shadow else value
        reach = max_dist * (1.0 - closeness)
        slope = max_dist * closeness / middle if shadow else 0.0
        length = (high - low) * math.hypot(reach * width, slope)
        count = int(min(MAX_CELLS // 2, 1 + length / SPACING))
        half = 0.5 * (high - low) / count
        total = 0.0
        for step in range(count):
            share = low + (2 * step + 1) * half
            scale = share if shadow else 1.0
            weight = max_dist * (1.0 - value / scale) * width * 2.0 * half * max_dist / scale
            weight = max(weight, 1e-12)
            total += weight
            rows.append((base, shadow, share, half, weight))
        if at_low:
            rows.append((base, shadow, low, 0.0, SUPPORT * total))
        if at_high:
            rows.append((base, shadow, high, 0.0, SUPPORT * total))

    low, high = max(0.0, 1.0 - before / value), min(1.0, after / value)
    if low <= high + 1e-5:
        add(
            min(low, high),
            high,
            index,
            0,
            before < value and unexplained[index - 1],
            after < value and unexplained[(index + 1) % bins],
        )
    for side, shadow in ((-1, 1), (1, -1)):
        nearer, beyond = values[(index + side) % bins], values[(index + 2 * side) % bins]
        if nearer > value:
            least = value / nearer
            low = max(least, value / (value + beyond))
            if low < 1.0:
                add(low, 1.0, index + side, shadow, low > least and unexplained[(index + 2 * side) % bins], False)
    if not rows:
        return None
    table = np.array(rows)
    return Curves(value, table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4])


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
    """Weighted cells, placed in the odometric frame, of which at most one holds a static object."""

    __slots__ = (
        "_bins",
        "_likeliest",
        "_max_dist",
        "age",
        "curves",
        "mean",
        "origin",
        "points",
        "sigma",
        "spacing",
        "supports",
        "weights",
    )

    def __init__(self, curves: Curves, origin: Origin, max_dist: float, bins: int) -> None:
        self.origin, self.curves = origin, curves
        self._max_dist, self._bins = max_dist, bins
        self.age = self.supports = 0
        self._place()

    def _place(self) -> None:
        body, self.spacing = self.curves.place(self._max_dist, self._bins)
        origin = self.origin
        self.points = np.empty_like(body)
        self.points[:, 0] = origin.x + origin.cos * body[:, 0] - origin.sin * body[:, 1]
        self.points[:, 1] = origin.y + origin.sin * body[:, 0] + origin.cos * body[:, 1]
        self._summarise()

    def _summarise(self) -> None:
        weight = self.curves.weight
        self.weights = weight / weight.sum()
        self.mean = self.weights @ self.points
        self._likeliest: tuple[float, float, float] | None = None
        spread = self.points - self.mean
        inner = self.spacing * self.spacing / 3.0
        self.sigma = math.sqrt(float(self.weights @ ((spread * spread).sum(axis=1) + inner)))

    def covariance(self) -> tuple[float, float, float]:
        """Covariance (xx, xy, yy) of the cells, their own length included, m^2."""
        spread = self.points - self.mean
        inner = float(self.weights @ (self.spacing * self.spacing)) / 6.0 + 5e-7
        xx, yy = self.weights @ (spread * spread)
        xy = self.weights @ (spread[:, 0] * spread[:, 1])
        return float(xx) + inner, float(xy), float(yy) + inner

    def likeliest(self) -> tuple[float, float, float]:
        """The place with most weight within `NEIGHBOURHOOD`, and the root mean square distance of all cells from it.

        Returns:
            x, y, sigma in m.
        """
        if self._likeliest is None:
            px, py = self.points[:, 0], self.points[:, 1]
            apart = (px[:, None] - px) ** 2 + (py[:, None] - py) ** 2
            mass = (np.maximum(1.0 - apart / NEIGHBOURHOOD**2, 0.0) * self.weights).sum(axis=1)
            x, y = self.points[int(mass.argmax())].tolist()
            dx, dy = self.mean[0] - x, self.mean[1] - y
            self._likeliest = x, y, math.sqrt(self.sigma**2 + float(dx * dx + dy * dy))
        return self._likeliest

    def drop_near(self, x: float, y: float, radius: float) -> bool:
        """Remove cells within `radius` [m] of an object that is already known; False if none is left."""
        delta = self.points - (x, y)
        return self._keep((delta * delta).sum(axis=1) > radius * radius)

    def _keep(self, alive: np.ndarray) -> bool:
        if not alive.any():
            return False
        if not alive.all():
            self.curves, self.points, self.spacing = self.curves.take(alive), self.points[alive], self.spacing[alive]
            self._summarise()
        return True

    def _split(self) -> None:
        """Where few cells are left, look closer."""
        wide = self.spacing > FINEST
        if wide.any() and len(wide) + int(wide.sum()) <= MAX_CELLS:
            self.curves = self.curves.split(wide)
            self._place()

    def update(
        self, ring: np.ndarray, unexplained: np.ndarray, pose: tuple[float, float, float, float], slack: float
    ) -> np.ndarray | None:
        """Remove the cells that a new ring contradicts, favour those that explain what nothing else does.

        Args:
            ring: readings [bins].
            unexplained: bool [bins], readings that no known object explains.
            pose: x, y, cos(yaw), sin(yaw) of the agent in the odometric frame.
            slack: odometric uncertainty, m.

        Returns:
            bool [bins]: unexplained readings that some living cell explains; None where no cell is left.
        """
        self._split()
        bins, max_dist = self._bins, self._max_dist
        scale = bins / (2.0 * math.pi)
        x, y, cos, sin = pose
        delta = self.points - (x, y)
        forward = cos * delta[:, 0] + sin * delta[:, 1]
        left = cos * delta[:, 1] - sin * delta[:, 0]
        distance = np.hypot(forward, left)
        turn = (np.arctan2(left, forward) * scale) % bins
        index = turn.astype(np.int64) % bins
        alias = turn - np.floor(turn)
        half = 1.1 * self.spacing + slack
        blur = np.minimum(half * scale / np.maximum(distance, 1e-3), 1.0)
        closeness = 1.0 - distance / max_dist
        radial = half / max_dist
        low = np.maximum(closeness - radial, 0.0)
        shares = np.stack([np.ones_like(alias), alias, 1.0 - alias])
        where = np.stack([index, (index + 1) % bins, index - 1])
        # A cell near the edge of a bin may stand for an object across it: its own bin then only gets the shadow.
        least = np.maximum(shares - blur, 0.0)
        least[0] = np.where(np.minimum(alias, 1.0 - alias) < blur, 1.0 - blur, 1.0)
        seen = ring[where]
        alive: np.ndarray = np.all(seen >= least * low, axis=0)
        if not self._keep(alive):
            return None
        seen, where, shares = seen[:, alive], where[:, alive], shares[:, alive]
        tolerance = radial[alive] + blur[alive] * closeness[alive] * (shares < 1.0)
        explains = unexplained[where] & (np.abs(seen - shares * closeness[alive]) <= tolerance)
        covered = np.zeros(bins, dtype=bool)
        covered[where[explains]] = True
        support = explains.sum(axis=0)
        if support.min() != support.max():
            curves = self.curves
            weight = curves.weight * SUPPORT ** (support - support.max())
            self.curves = Curves(curves.value, curves.base, curves.shadow, curves.share, curves.half, weight)
            self._summarise()
            self._keep(self.weights > UNLIKELY * self.weights.max())
        self.age += 1
        self.supports += bool(covered.any())
        return covered

"""Length of the shortest way to a target around round obstacles.

A straight distance makes every short-sighted controller stop in front of an obstacle that stands exactly in its way;
the length of the way around it does not. The way is measured on a grid (Dijkstra over 16 neighbours) and interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

_NEIGHBOURS = np.array([(1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2)])


@lru_cache(maxsize=4)
def _edges(size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Undirected grid edges (from, to, length in cells) of a size × size grid."""
    row, column = np.divmod(np.arange(size * size), size)
    start, end, length = [], [], []
    for step_row, step_column in _NEIGHBOURS:
        to_row, to_column = row + step_row, column + step_column
        inside = (to_row >= 0) & (to_row < size) & (to_column >= 0) & (to_column < size)
        start.append(np.flatnonzero(inside))
        end.append((to_row * size + to_column)[inside])
        length.append(np.full(int(inside.sum()), np.hypot(step_row, step_column)))
    return np.concatenate(start), np.concatenate(end), np.concatenate(length)


@dataclass(frozen=True)
class GeodesicField:
    """Distance to `target` around obstacles on a square grid, with linear interpolation between its nodes."""

    origin: NDArray[np.float64]  # [2] m, lower corner
    cell: float  # m
    values: NDArray[np.float32]  # [size, size] m

    def __call__(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Distance in metres at `points` [..., 2]; beyond the grid, that of its border plus the way to it."""
        size = self.values.shape[0]
        scaled = (points - self.origin.astype(points.dtype)) / points.dtype.type(self.cell)
        clipped = np.clip(scaled, 0, size - 1.001)
        index = clipped.astype(np.int32)
        part = clipped - index
        flat = self.values.ravel()
        corner = index[..., 0] * size + index[..., 1]
        u, v = part[..., 0], part[..., 1]
        low = flat[corner] * (1 - v) + flat[corner + 1] * v
        high = flat[corner + size] * (1 - v) + flat[corner + size + 1] * v
        outside = np.abs(scaled - clipped).sum(-1) * self.cell
        return (low * (1 - u) + high * u + outside).astype(np.float32)


def geodesic_field(
    target: NDArray[np.floating],
    centers: NDArray[np.floating],
    radii: NDArray[np.floating],
    *,
    reach: float = 3.2,
    cell: float = 0.08,
    detour_factor: float = 8.0,
) -> GeodesicField:
    """The field of distances to `target` [2] around discs `centers` [N, 2], `radii` [N] (metres, margins included).

    `reach` is the half width of the grid around the middle of everything within twice that of the target. Ground inside
    a disc is not forbidden but `detour_factor` times as long, so that an agent inside still finds the way out.
    """
    around = centers[((centers - target) ** 2).sum(-1) < (2 * reach) ** 2] if len(centers) else centers
    everything = np.vstack([target[None], around]) if len(around) else target[None]
    middle = (everything.min(0) + everything.max(0)) / 2
    size = int(2 * reach / cell) + 1
    origin = middle - reach
    axis = np.arange(size) * cell
    grid = np.stack(np.meshgrid(axis + origin[0], axis + origin[1], indexing="ij"), -1).reshape(-1, 2)
    offset = np.sqrt(((grid - target) ** 2).sum(-1))
    if not len(centers):
        return GeodesicField(origin=origin, cell=cell, values=offset.reshape(size, size).astype(np.float32))
    weight = np.ones(len(grid))
    for center, radius in zip(centers, radii, strict=True):
        # A disc that holds the target would make every way equally bad: it only bends ways that cross it.
        weight[((grid - center) ** 2).sum(-1) < radius**2] = detour_factor
    start, end, length = _edges(size)
    cost = length * cell * np.maximum(weight[start], weight[end])
    # The target lies between nodes: it is one more, joined to those around it by their true distances.
    near, here = np.argpartition(offset, 4)[:4], size * size
    graph = csr_array(
        (np.r_[cost, offset[near]], (np.r_[start, np.full(4, here)], np.r_[end, near])), shape=(here + 1, here + 1)
    )
    distance = dijkstra(graph, directed=False, indices=here)[:here]
    return GeodesicField(origin=origin, cell=cell, values=distance.reshape(size, size).astype(np.float32))

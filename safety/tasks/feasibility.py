"""Whether a layout can be solved at all: a coarse search on a grid, at layout time."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

CELL = 0.05  # m
_RIM = 0.5  # m of free floor around the square in which objects are placed: agents may drive there


def zones_reachable(
    agent: np.ndarray,
    zones: np.ndarray,
    hazards: np.ndarray,
    *,
    radius: float,
    extent: float,
    blocked_zones: bool = True,
    zone_radius: float = 0.3,
) -> bool:
    """Whether the agent can get into every zone without coming closer than `radius` to the centre of a hazard.

    Args:
        agent: start [2], m.
        zones: centres [Z, 2], m.
        hazards: centres [N, 2], m.
        radius: m, hazard size plus the clearance asked for.
        extent: m, half side of the square in which everything is placed.
        blocked_zones: each zone must also be reachable without touching any of the others, so that every instruction
            (which may forbid the others, and ask for any order) can be followed.
        zone_radius: m; a zone counts as reached at its centre.

    The search is on cells of 5 cm, joined across edges, with half a cell's diagonal added to every radius: what it
    finds reachable is so.
    """
    reach = extent + _RIM
    axis = np.arange(-reach + CELL / 2, reach, CELL)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    slack = CELL * np.sqrt(0.5)

    def discs(centres: np.ndarray, size: float) -> np.ndarray:
        offsets = grid[:, :, None, :] - centres[None, None]
        return np.asarray(np.einsum("xyni,xyni->xyn", offsets, offsets) < (size + slack) ** 2)

    free = np.logical_not(np.any(discs(hazards, radius), axis=-1))
    cells = [tuple(np.clip(((point + reach) / CELL).astype(int), 0, len(axis) - 1)) for point in (agent, *zones)]
    if not all(free[cell] for cell in cells):
        return False
    if not blocked_zones:
        labels, _ = ndimage.label(free)
        return all(labels[cell] == labels[cells[0]] for cell in cells)
    covered = discs(zones, zone_radius)
    # Stronger than pairwise paths: all ground outside the zones that counts hangs together, and every zone has a door.
    labels, _ = ndimage.label(free & np.logical_not(np.any(covered, axis=-1)))
    outside = labels == labels[cells[0]] if labels[cells[0]] else np.zeros_like(free)
    for index, cell in enumerate(cells[1:]):
        labels, _ = ndimage.label(outside | (free & covered[:, :, index]))
        if not labels[cell] or labels[cell] != labels[cells[0]]:
            return False
    return True

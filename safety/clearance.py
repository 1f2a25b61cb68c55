"""Clearance of many trajectories from many discs at once, between waypoints included.

For ranking candidate plans: one vectorised pass over trajectories x steps x obstacles, no loop over constraints.
"""

from __future__ import annotations

import numpy as np
import torch

from safety.constraint_arrays import TINY, Array, like


def clearance(paths: Array, centers: Array, radii: Array, *, per_ball: bool = False) -> Array:
    """Signed clearance [B, T] in metres of each step of each path from the nearest disc.

    Entry [b, t] is the smallest distance to a disc's edge on the segment from waypoint t - 1 to waypoint t (closest
    point on the segment; entry 0 is the first waypoint alone), so `clearance(...).min(1)` is the clearance of the whole
    polyline. Obstacles that move by waypoint are met at the closest approach of two uniform motions.

    paths: [B, T, 2] m, numpy or torch (differentiable). centers: [N, 2], or [T, N, 2] for moving obstacles, or
    [B or 1, T or 1, N, 2]; m. radii: [N] m, margins added by the caller. per_ball: return [B, T, N]. Without discs
    (N = 0) the clearance is +inf. Raises ValueError for wrong shapes, NaN or negative radii.
    """
    if not isinstance(paths, torch.Tensor):
        paths = np.asarray(paths)
        paths = paths if paths.dtype.kind == "f" else paths.astype(np.float64)
    if paths.ndim != 3 or paths.shape[-1] != 2 or paths.shape[1] < 1:
        raise ValueError(f"paths must have shape [B, T >= 1, 2], got {tuple(paths.shape)}")
    centers, radii = like(paths, centers), like(paths, radii)
    batch, steps = paths.shape[:2]
    if centers.ndim == 2:
        centers = centers[None, None]
    elif centers.ndim == 3:
        centers = centers[None]
    allowed = centers.ndim == 4 and centers.shape[-1] == 2
    if not allowed or centers.shape[0] not in (1, batch) or centers.shape[1] not in (1, steps):
        raise ValueError(
            f"centers must be [N, 2], [T, N, 2] or [B or 1, T or 1, N, 2] for paths {tuple(paths.shape)}, "
            f"got {tuple(centers.shape)} after broadcasting"
        )
    if radii.ndim != 1 or radii.shape[0] != centers.shape[2]:
        raise ValueError(f"radii must have shape [{centers.shape[2]}], one per centre, got {tuple(radii.shape)}")
    finite = torch.isfinite if isinstance(paths, torch.Tensor) else np.isfinite
    for name, array in (("paths", paths), ("centers", centers), ("radii", radii)):
        if not bool(finite(array).all()):
            raise ValueError(f"{name} must be finite, got NaN or infinite entries")
    if bool((radii < 0).any()):
        raise ValueError(f"radii must be >= 0, got {radii.tolist()}")
    distance = _segment_distance(paths, centers) - radii
    if per_ball:
        return distance
    if radii.shape[0] == 0:
        return distance.sum(-1) + float("inf")
    return distance.amin(-1) if isinstance(distance, torch.Tensor) else distance.min(-1)


def _segment_distance(paths: Array, centers: Array) -> Array:
    """Distance [B, T, N] from each centre to the segment that ends at each waypoint (the first: to the point)."""
    # Coordinates apart: two [B, T, N] arrays are faster to work on than one [B, T, N, 2].
    x = paths[:, :, None, 0] - centers[..., 0]
    y = paths[:, :, None, 1] - centers[..., 1]
    dx, dy = x[:, 1:] - x[:, :-1], y[:, 1:] - y[:, :-1]
    # Backwards from the segment's end: 0 is the waypoint itself, 1 the one before.
    part = ((x[:, 1:] * dx + y[:, 1:] * dy) / (dx * dx + dy * dy).clip(TINY**2, None)).clip(0.0, 1.0)
    near_x, near_y = x[:, 1:] - part * dx, y[:, 1:] - part * dy
    if isinstance(paths, torch.Tensor):
        squared = torch.cat([x[:, :1].square() + y[:, :1].square(), near_x.square() + near_y.square()], 1)
        return squared.clamp_min(TINY**2).sqrt()
    squared = np.empty_like(x)
    squared[:, :1] = x[:, :1] ** 2 + y[:, :1] ** 2
    squared[:, 1:] = near_x**2 + near_y**2
    return np.sqrt(squared)

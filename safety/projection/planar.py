"""Exact projection in the plane, for whole batches at once, in O(m^2) per point.

The nearest allowed point to a point outside lies on the line of some violated row. On the line of row i the other rows
leave an interval; the nearest point of that interval is a clamp. The best clamp over all i is the projection, and if
every interval is empty there is none: no iteration, no tolerance to converge to, and infeasibility is decided, not
guessed. (The interval on a line is the step of Seidel's linear programming, Discrete Comput. Geom. 6, 1991.)
"""

from __future__ import annotations

from typing import NamedTuple

import torch

# Rows closer in angle than this are parallel: below it, rounding (1e-16) would move an intersection by metres.
PARALLEL = 1e-13
ROUNDING = 1e-12  # m per metre of bound: loosens intervals by what float64 cannot tell apart

# Row pairs at once: what stays in a core's cache, and what stays well within a GPU's memory.
CPU_CHUNK, GPU_CHUNK = 2**17, 2**24


class Planar(NamedTuple):
    y: torch.Tensor  # [B, 2] the nearest point to the origin; 0 where there is none
    found: torch.Tensor  # [B] bool
    pair: torch.Tensor  # [B, 2] the rows that hold it, -1 for none


def nearest_to_origin(rows: torch.Tensor, bounds: torch.Tensor, tol: float) -> Planar:
    """min |y|^2 s.t. rows y <= bounds, for unit rows [B, m, 2] and bounds [B, m] (+-inf allowed); float64.

    Points with no answer at rounding precision are tried again with rows loosened by `tol` metres.
    """
    batch = rows.shape[0]
    y = rows.new_zeros(batch, 2)
    pair = torch.full((batch, 2), -1, dtype=torch.long, device=rows.device)
    if rows.shape[1] == 0:
        return Planar(y, torch.ones(batch, dtype=torch.bool, device=rows.device), pair)
    found = (bounds >= 0).all(-1)  # the origin itself is allowed
    for slack in (0.0, tol):
        todo = (~found & ~(bounds == -torch.inf).any(-1)).nonzero()[:, 0]
        if todo.numel() == 0:
            break
        for some in todo.split(max(1, (GPU_CHUNK if rows.is_cuda else CPU_CHUNK) // rows.shape[1] ** 2)):
            y[some], found[some], pair[some] = _clip(rows[some], bounds[some], slack)
    return Planar(y, found, pair)


def _clip(rows: torch.Tensor, bounds: torch.Tensor, slack: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # Only lines of violated rows can carry the answer: work on the P pairs (point, violated row), not on all B * m.
    point, line = (bounds < 0).nonzero().unbind(-1)
    batch, inf = len(bounds), torch.inf
    normal, depth = rows[point, line], bounds[point, line]  # [P, 2], [P]: the line is depth * normal + t * turned
    others, limits = rows[point], bounds[point]  # [P, m, 2], [P, m]
    turned = torch.stack([-normal[:, 1], normal[:, 0]], -1)
    frame = torch.stack([normal, turned], -1)  # [P, 2, 2]
    along, slope = (others @ frame).unbind(-1)  # a_j . a_i and a_j . d_i, both [P, m]
    room = limits - along * depth[:, None]  # how far row j still is at the foot point of the line
    loose = slack + ROUNDING * (1.0 - depth[:, None])
    parallel = slope.abs() <= PARALLEL
    cut = (room + loose) / torch.where(parallel, 1.0, slope)
    high, high_row = torch.where(slope > PARALLEL, cut, inf).min(-1)
    low, low_row = torch.where(slope < -PARALLEL, cut, -inf).max(-1)
    blocked = (parallel & (room < -loose)).any(-1)  # a parallel row excludes the whole line
    t = low.clamp_min(0.0).minimum(high)
    square = torch.where(~blocked & (low <= high), depth.square() + t.square(), inf)
    best = square.new_full((batch,), inf).scatter_reduce(0, point, square, "amin")
    ok = best < inf
    # The first pair of each point that reaches its minimum.
    index = torch.arange(len(point), device=rows.device)
    reached = (square == best[point]) & ok[point]
    first = torch.where(reached, index, len(point))
    chosen = torch.full((batch,), len(point), device=rows.device).scatter_reduce(0, point, first, "amin")
    chosen = torch.where(ok, chosen, 0)
    y = depth[chosen, None] * normal[chosen] + t[chosen, None] * turned[chosen]
    step = t[chosen]
    second = torch.where(step > 0, low_row[chosen], torch.where(step < 0, high_row[chosen], -1))
    active = torch.stack([line[chosen], second], -1)
    return torch.where(ok[:, None], y, 0.0), ok, torch.where(ok[:, None], active, -1)

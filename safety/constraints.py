"""Constraints as objects: what is allowed, in metres or metres per second.

Every constraint has `value(x, t)` (>= 0 is allowed), `linearise(x, t)` (half-spaces `A z <= b` that imply
`value(z) >= 0` near `x`, to first order at least) and `segment_value(x0, x1)` (the smallest value between two
waypoints). The same object takes numpy arrays and torch tensors of any batch shape; torch values are differentiable.

`rank` says what may give way: "hard" rows (operator limits, hazards) never do; "soft" rows (what a sentence adds) may
be relaxed with slack by `safety.projection.project_soft`.

`x` is `[..., F]`; `dims` names the features a constraint acts on, so that one object serves positions `[..., 2]` and
whole states `[..., 6]` (see `safety.scene.STATE_DIM`: x, y, yaw, vx, vy, yaw rate).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from safety.barrier import Barrier
from safety.clearance import clearance
from safety.constraint_arrays import (
    TINY,
    Array,
    Vector,
    check_rank,
    dim_indices,
    like,
    norm,
    number,
    outward,
    pick,
    repeat,
    smallest,
    spread,
    vector,
)
from safety.constraint_types import Constraint, Convex, Linearisation, Rank

__all__ = [
    "Ball",
    "Barrier",
    "Box",
    "Constraint",
    "HalfSpace",
    "Inside",
    "Linearisation",
    "Rank",
    "Speed",
    "clearance",
    "stack",
]


@dataclass(frozen=True)
class Ball:
    """Keep outside a disc or ball: value = |x - centre(t)| - radius - margin [m].

    center: D numbers [m]; radius, margin: m; velocity: D numbers [m/s], the centre moves as center + velocity * t.
    `linearise` gives the tangent half-space, which lies wholly outside the ball: a point that satisfies it is allowed,
    not to first order only. Exactly at the centre the first axis is taken as the way out.
    """

    center: Vector
    radius: float
    margin: float = 0.0
    rank: Rank = "hard"
    velocity: Vector | None = None
    dims: Sequence[int] = (0, 1)

    def __post_init__(self) -> None:
        center = vector("Ball.center", self.center)
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "radius", number("Ball.radius", self.radius))
        object.__setattr__(self, "margin", number("Ball.margin", self.margin))
        velocity = (0.0,) * len(center) if self.velocity is None else self.velocity
        object.__setattr__(self, "velocity", vector("Ball.velocity", velocity, length=len(center)))
        object.__setattr__(self, "dims", dim_indices("Ball.dims", self.dims, len(center)))
        check_rank("Ball.rank", self.rank)

    def _offset(self, x: Array, t: Array | float) -> Array:
        point = pick("Ball", x, tuple(self.dims))
        return point - like(point, self.center) - like(point, t)[..., None] * like(point, self.velocity)

    def value(self, x: Array, t: Array | float = 0.0) -> Array:
        """Clearance [...] in metres at x [..., F], t [s] broadcast over the batch."""
        return norm(self._offset(x, t)) - (self.radius + self.margin)

    def linearise(self, x: Array, t: Array | float = 0.0) -> Linearisation:
        """The tangent half-space facing x: A [..., 1, F], b [..., 1]."""
        offset = self._offset(x, t)
        normal = outward(offset)
        point = pick("Ball", x, tuple(self.dims))
        bound = -(normal * (point - offset)).sum(-1) - (self.radius + self.margin)
        return Linearisation(*spread(x, tuple(self.dims), -normal[..., None, :], bound[..., None]))

    def segment_value(self, x0: Array, x1: Array, t0: Array | float = 0.0, t1: Array | float = 0.0) -> Array:
        """Clearance [...] in metres at the closest approach between x0 at t0 and x1 at t1, both moving uniformly."""
        start, end = self._offset(x0, t0), self._offset(x1, t1)
        step = end - start
        along = -(start * step).sum(-1) / (step * step).sum(-1).clip(TINY**2, None)
        return norm(start + along.clip(0.0, 1.0)[..., None] * step) - (self.radius + self.margin)


@dataclass(frozen=True)
class Inside(Convex):
    """Stay inside a disc or ball: value = radius - margin - |x - center| [m].

    `linearise` gives the tangent at the side of x, which implies the constraint to first order only.
    """

    center: Vector
    radius: float
    margin: float = 0.0
    rank: Rank = "hard"
    dims: Sequence[int] = (0, 1)

    def __post_init__(self) -> None:
        center = vector("Inside.center", self.center)
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "radius", number("Inside.radius", self.radius, positive=True))
        object.__setattr__(self, "margin", number("Inside.margin", self.margin))
        if self.margin >= self.radius:
            raise ValueError(f"Inside.margin must be below {self.radius=}, got {self.margin}: nothing is allowed")
        object.__setattr__(self, "dims", dim_indices("Inside.dims", self.dims, len(center)))
        check_rank("Inside.rank", self.rank)

    def value(self, x: Array, t: Array | float = 0.0) -> Array:
        """Clearance [...] in metres at x [..., F]."""
        point = pick("Inside", x, tuple(self.dims))
        return (self.radius - self.margin) - norm(point - like(point, self.center))

    def linearise(self, x: Array, t: Array | float = 0.0) -> Linearisation:
        """The tangent half-space at the side of x: A [..., 1, F], b [..., 1]."""
        point = pick("Inside", x, tuple(self.dims))
        center = like(point, self.center)
        normal = outward(point - center)
        bound = (normal * center).sum(-1) + (self.radius - self.margin)
        return Linearisation(*spread(x, tuple(self.dims), normal[..., None, :], bound[..., None]))


@dataclass(frozen=True)
class HalfSpace(Convex):
    """Stay on one side of a line or plane: normal . x <= offset; value = (offset - normal . x) / |normal| - margin."""

    normal: Vector
    offset: float
    margin: float = 0.0
    rank: Rank = "hard"
    dims: Sequence[int] | None = None

    def __post_init__(self) -> None:
        normal = vector("HalfSpace.normal", self.normal)
        length = math.hypot(*normal)
        if length < TINY:
            raise ValueError(f"HalfSpace.normal must not be zero, got {normal}")
        if not math.isfinite(self.offset):
            raise ValueError(f"HalfSpace.offset must be finite, got {self.offset}")
        object.__setattr__(self, "normal", tuple(entry / length for entry in normal))
        object.__setattr__(self, "offset", float(self.offset) / length)
        object.__setattr__(self, "margin", number("HalfSpace.margin", self.margin))
        dims = range(len(normal)) if self.dims is None else self.dims
        object.__setattr__(self, "dims", dim_indices("HalfSpace.dims", dims, len(normal)))
        check_rank("HalfSpace.rank", self.rank)

    def value(self, x: Array, t: Array | float = 0.0) -> Array:
        """Clearance [...] in metres at x [..., F]."""
        point = pick("HalfSpace", x, tuple(self.dims or ()))
        return (self.offset - self.margin) - (point * like(point, self.normal)).sum(-1)

    def linearise(self, x: Array, t: Array | float = 0.0) -> Linearisation:
        """The half-space itself, with a unit normal: A [..., 1, F], b [..., 1]."""
        point = pick("HalfSpace", x, tuple(self.dims or ()))
        bounds = repeat(point, [self.offset - self.margin])
        return Linearisation(*spread(x, tuple(self.dims or ()), repeat(point, [self.normal]), bounds))


@dataclass(frozen=True)
class Box(Convex):
    """Stay inside low <= x <= high; value = distance to the nearest face [m], negative outside.

    A face at -inf or +inf is no face. `linearise` gives one row per finite face and is exact.
    """

    low: Vector
    high: Vector
    margin: float = 0.0
    rank: Rank = "hard"
    dims: Sequence[int] | None = None

    def __post_init__(self) -> None:
        low = vector("Box.low", self.low, infinite=True)
        high = vector("Box.high", self.high, length=len(low), infinite=True)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "margin", number("Box.margin", self.margin))
        if any(h - ell < 2 * self.margin for ell, h in zip(low, high, strict=True)):
            raise ValueError(f"Box needs low + 2 * margin <= high everywhere, got {low=}, {high=}, {self.margin=}")
        dims = range(len(low)) if self.dims is None else self.dims
        object.__setattr__(self, "dims", dim_indices("Box.dims", dims, len(low)))
        check_rank("Box.rank", self.rank)
        if not any(map(math.isfinite, low + high)):
            raise ValueError(f"Box needs at least one finite face, got {low=}, {high=}")

    def _faces(self) -> tuple[np.ndarray, np.ndarray]:
        """Unit normals [M, D] and offsets [M] of the finite faces."""
        normals, offsets = [], []
        for axis, unit in enumerate(np.eye(len(self.low))):
            for sign, bound in ((1.0, self.high[axis]), (-1.0, -self.low[axis])):
                if math.isfinite(bound):
                    normals.append(sign * unit)
                    offsets.append(bound - self.margin)
        return np.stack(normals), np.asarray(offsets)

    def value(self, x: Array, t: Array | float = 0.0) -> Array:
        """Clearance [...] in metres at x [..., F]."""
        point = pick("Box", x, tuple(self.dims or ()))
        normals, offsets = self._faces()
        return smallest(like(point, offsets) - point @ like(point, normals).T)

    def linearise(self, x: Array, t: Array | float = 0.0) -> Linearisation:
        """The finite faces: A [..., M, F], b [..., M]."""
        point = pick("Box", x, tuple(self.dims or ()))
        normals, offsets = self._faces()
        return Linearisation(*spread(x, tuple(self.dims or ()), repeat(point, normals), repeat(point, offsets)))


@dataclass(frozen=True)
class Speed(Convex):
    """Stay below a speed: value = limit - margin - |v| [m/s]; `dims` are the velocity's features in x.

    The default `dims` (3, 4) are the world-frame velocity of a state [..., 6]. `linearise` gives the tangent at the
    direction of v (first order), or with `facets` >= 3 (planar only) the regular polygon inside the disc: every point
    that satisfies its rows is below the limit, at the price of up to (1 - cos(pi / facets)) of it.
    """

    limit: float
    margin: float = 0.0
    rank: Rank = "hard"
    dims: Sequence[int] = (3, 4)
    facets: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", number("Speed.limit", self.limit, positive=True))
        object.__setattr__(self, "margin", number("Speed.margin", self.margin))
        if self.margin >= self.limit:
            raise ValueError(f"Speed.margin must be below {self.limit=}, got {self.margin}: nothing is allowed")
        object.__setattr__(self, "dims", dim_indices("Speed.dims", self.dims, len(tuple(self.dims))))
        if self.facets and (self.facets < 3 or len(self.dims) != 2):
            raise ValueError(f"Speed.facets must be 0, or >= 3 with two dims, got {self.facets=}, {self.dims=}")
        check_rank("Speed.rank", self.rank)

    def value(self, x: Array, t: Array | float = 0.0) -> Array:
        """Room [...] in m/s at x [..., F]."""
        return (self.limit - self.margin) - norm(pick("Speed", x, tuple(self.dims)))

    def linearise(self, x: Array, t: Array | float = 0.0) -> Linearisation:
        """The tangent at v's direction (M = 1), or the inscribed polygon (M = facets): A [..., M, F], b [..., M]."""
        speed = pick("Speed", x, tuple(self.dims))
        if not self.facets:
            rows, bounds = outward(speed)[..., None, :], repeat(speed, [self.limit - self.margin])
        else:
            angles = 2 * np.pi * np.arange(self.facets) / self.facets
            reach = (self.limit - self.margin) * math.cos(math.pi / self.facets)
            rows = repeat(speed, np.stack([np.cos(angles), np.sin(angles)], -1))
            bounds = repeat(speed, [reach] * self.facets)
        return Linearisation(*spread(x, tuple(self.dims), rows, bounds))


def stack(constraints: Sequence[Constraint], x: Array, t: Array | float = 0.0) -> tuple[Linearisation, np.ndarray]:
    """All rows at x [..., F] as one `A [..., M, F] z <= b [..., M]`, and which rows are hard [M] (bool).

    Raises ValueError for an empty sequence; errors of a constraint name it.
    """
    if not constraints:
        raise ValueError("stack needs at least one constraint, got none")
    parts = [constraint.linearise(x, t) for constraint in constraints]
    hard = [
        np.full(part.b.shape[-1], constraint.rank == "hard")
        for constraint, part in zip(constraints, parts, strict=True)
    ]
    if isinstance(parts[0].A, torch.Tensor):
        rows = Linearisation(torch.cat([part.A for part in parts], -2), torch.cat([part.b for part in parts], -1))
    else:
        rows = Linearisation(np.concatenate([p.A for p in parts], -2), np.concatenate([p.b for p in parts], -1))
    return rows, np.concatenate(hard)

"""Arithmetic and checks that work on numpy arrays and torch tensors alike, for constraints.

What goes in decides what comes out: an array gives an array, a tensor a (differentiable) tensor on its device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

Array: TypeAlias = Any  # np.ndarray or torch.Tensor
Vector: TypeAlias = Sequence[float] | np.ndarray
TINY = 1e-12  # m; below this length a direction is not defined


def vector(name: str, value: Vector, *, length: int | None = None, infinite: bool = False) -> tuple[float, ...]:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or (length is not None and array.size != length):
        wanted = "a vector" if length is None else f"{length} numbers"
        raise ValueError(f"{name} must be {wanted}, got shape {array.shape}")
    if np.isnan(array).any() or (not infinite and not np.isfinite(array).all()):
        raise ValueError(f"{name} must be finite, got {array.tolist()}")
    return tuple(float(entry) for entry in array)


def number(name: str, value: float, *, positive: bool = False) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"{name} must be a finite {'positive' if positive else 'non-negative'} number, got {value}")
    return number


def dim_indices(name: str, value: Sequence[int], length: int) -> tuple[int, ...]:
    dims = tuple(int(entry) for entry in value)
    if len(dims) != length or len(set(dims)) != length or min(dims) < 0:
        raise ValueError(f"{name} must be {length} different feature indices >= 0, got {tuple(value)}")
    return dims


def check_rank(name: str, value: str) -> None:
    if value not in ("hard", "soft"):
        raise ValueError(f"{name} must be 'hard' or 'soft', got {value!r}")


def pick(owner: str, x: Array, dims: tuple[int, ...], *, whole: bool = False) -> Array:
    """The features `dims` (all, if `whole`) of x [..., F], as floats; errors name the constraint."""
    if not isinstance(x, torch.Tensor):
        x = np.asarray(x)
        x = x if x.dtype.kind == "f" else x.astype(np.float64)
    if x.ndim == 0 or x.shape[-1] <= max(dims):
        raise ValueError(f"{owner} acts on features {dims}, but x has shape {tuple(x.shape)} (features last)")
    if not bool((torch if isinstance(x, torch.Tensor) else np).isfinite(x).all()):
        raise ValueError(f"{owner} got an x with NaN or infinite entries, shape {tuple(x.shape)}")
    return x if whole or dims == tuple(range(x.shape[-1])) else x[..., list(dims)]


def like(x: Array, values: Any) -> Array:
    """`values` as an array of x's kind, dtype and device."""
    if isinstance(x, torch.Tensor):
        return torch.as_tensor(values, dtype=x.dtype, device=x.device)
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype=x.dtype)


def norm(x: Array) -> Array:
    """Euclidean length [...] of x [..., D], with a finite gradient at zero."""
    if isinstance(x, torch.Tensor):
        return x.square().sum(-1).clamp_min(TINY**2).sqrt()
    return np.sqrt(np.square(x).sum(-1))


def spread(x: Array, dims: tuple[int, ...], rows: Array, bounds: Array) -> tuple[Array, Array]:
    """Rows [..., M, D] on `dims` spread over all F features of x; zero elsewhere."""
    features = int(x.shape[-1])
    if dims == tuple(range(features)):
        return rows, bounds
    shape = (*rows.shape[:-1], features)
    full = rows.new_zeros(shape) if isinstance(rows, torch.Tensor) else np.zeros(shape, dtype=rows.dtype)
    full[..., list(dims)] = rows
    return full, bounds


def minimum(a: Array, b: Array) -> Array:
    return torch.minimum(a, b) if isinstance(a, torch.Tensor) else np.minimum(a, b)


def smallest(x: Array) -> Array:
    """Minimum over the last axis."""
    return x.amin(-1) if isinstance(x, torch.Tensor) else x.min(-1)


def repeat(x: Array, values: Any) -> Array:
    """`values` [M...] repeated over the batch of x [..., D] -> [..., M...]."""
    target = like(x, values)
    shape = (*x.shape[:-1], *target.shape)
    return target.expand(shape) if isinstance(x, torch.Tensor) else np.broadcast_to(target, shape).copy()


def outward(offset: Array) -> Array:
    """Unit direction [..., D] of `offset`; where it has no direction the first axis stands in, deterministically."""
    length = norm(offset)[..., None]
    axis = like(offset, np.eye(1, offset.shape[-1])[0])
    if isinstance(offset, torch.Tensor):
        return torch.where(length > 10 * TINY, offset / length.clamp_min(TINY), axis)
    return np.where(length > 10 * TINY, offset / np.maximum(length, TINY), axis)

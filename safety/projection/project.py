"""The projection onto half-spaces, behind one function."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch

from safety.projection import single
from safety.projection.implicit import attach_gradient
from safety.projection.planar import nearest_to_origin
from safety.projection.problem import Array, Projection, Scaled, Status, check, scale

Method: TypeAlias = Literal["auto", "planar", "daqp", "cvxpy"]
# On a CPU the vectorised planar method beats a loop over DAQP for many points with few rows.
PLANAR_FROM, PLANAR_ROWS = 64, 16


def project(
    x: Array,
    A: Array,
    b: Array,
    *,
    method: Method = "auto",
    weights: Array | None = None,
    tol: float = 1e-9,
) -> Projection:
    """The nearest point to x that satisfies all rows: min sum_i w_i (z_i - x_i)^2 s.t. A z <= b.

    x: [..., n]; A: [..., m, n]; b: [..., m], +inf for "no constraint"; weights: [..., n] > 0, ones by default. Batch
    dimensions broadcast. Numpy or torch (a tensor among the inputs makes it torch, on x's device); the computation is
    in float64, the answer in x's dtype, so float32 answers keep the rows to float32 rounding only.

    method: "planar" (n = 2: exact, batched, numpy or torch, CPU or GPU), "daqp" (any n, one after the other on the
    CPU), "cvxpy" (the specification), "auto" (planar for n = 2 on a GPU or in a batch, else daqp). All agree.
    tol: how far a row may be missed, as a distance (rows are normalised); no point within tol of all rows means
    INFEASIBLE.

    With torch the answer is differentiable in x, A, b and weights (implicitly, see `implicit`); not with "cvxpy".

    Returns a `Projection` with a status per point; an unsolved point is NaN, never the input. Raises ValueError for
    wrong shapes, NaN, -inf bounds, non-positive weights, unknown methods.
    """
    given = [entry for entry in (x, A, b, weights) if entry is not None]
    if method not in ("auto", "planar", "daqp", "cvxpy"):
        raise ValueError(f"method must be 'auto', 'planar', 'daqp' or 'cvxpy', got {method!r}")
    if not 0 < tol < 1:
        raise ValueError(f"tol must be a small positive distance, got {tol}")
    if any(isinstance(entry, torch.Tensor) for entry in given):
        return _project_torch(x, A, b, method, weights, tol)
    x = np.asarray(x)
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    x, A, b = (np.asarray(entry, dtype=np.float64) for entry in (x, A, b))
    weights = None if weights is None else np.asarray(weights, dtype=np.float64)
    check(x, A, b, weights)
    shape, x, A, b, weights = _flatten(x, A, b, weights)
    _check_method(method, x, needs_grad=False)
    if method == "cvxpy":
        z, status, active = _specification(x, A, b, weights, tol)
    else:
        scaled = scale(x, A, b, weights)
        if method == "planar" or (method == "auto" and _few_rows_many_points(x, b)):
            tensors = Scaled(torch.from_numpy(scaled.rows), torch.from_numpy(scaled.bounds), None, None)
            y, status, active = (part.numpy() for part in _planar(tensors, tol))
        else:
            y, status, active = single.solve_each(scaled.rows, scaled.bounds, tol)
        z = x + (y if scaled.scale is None else y * scaled.scale)
    z = z.astype(dtype, copy=False)
    bad = status != 0
    excess = (A @ np.where(bad[:, None], x, z)[..., None])[..., 0] - b
    violation = excess.max(-1, initial=0.0)
    if bad.any():
        z = np.where(bad[:, None], np.nan, z).astype(dtype, copy=False)
    return Projection(
        z.reshape(*shape, x.shape[-1]),
        status.reshape(shape),
        violation.reshape(shape),
        active.reshape(*shape, b.shape[-1]),
    )


def _project_torch(x: Array, A: Array, b: Array, method: Method, weights: Array | None, tol: float) -> Projection:
    device = next(e.device for e in (x, A, b, weights) if isinstance(e, torch.Tensor))
    x = torch.as_tensor(x, device=device)
    dtype = x.dtype if x.is_floating_point() else torch.float64
    x, A, b = (torch.as_tensor(entry, device=device).double() for entry in (x, A, b))
    weights = None if weights is None else torch.as_tensor(weights, device=device).double()
    check(x, A, b, weights)
    shape, x, A, b, weights = _flatten(x, A, b, weights)
    tensors = [entry for entry in (x, A, b, weights) if entry is not None]
    needs_grad = torch.is_grad_enabled() and any(entry.requires_grad for entry in tensors)
    _check_method(method, x, needs_grad=needs_grad)
    with torch.no_grad():
        z, status, active = _solve_torch(x, A, b, method, weights, tol)
    if needs_grad:
        z = attach_gradient(z, x, A, b, weights, active & (status == 0)[:, None])
    z = z.to(dtype)
    bad = status != 0
    with torch.no_grad():
        excess = (A @ torch.where(bad[:, None], x, z.double())[..., None])[..., 0] - b
        violation = excess.amax(-1).clamp_min(0.0) if excess.shape[-1] else excess.new_zeros(len(x))
    z = torch.where(bad[:, None], torch.nan, z)
    return Projection(
        z.reshape(*shape, x.shape[-1]),
        status.reshape(shape),
        violation.reshape(shape),
        active.reshape(*shape, b.shape[-1]),
    )


def _solve_torch(
    x: torch.Tensor, A: torch.Tensor, b: torch.Tensor, method: Method, weights: torch.Tensor | None, tol: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if method == "cvxpy":
        spread = None if weights is None else weights.cpu().numpy()
        found = _specification(x.cpu().numpy(), A.cpu().numpy(), b.cpu().numpy(), spread, tol)
        z, status, active = (torch.from_numpy(part).to(x.device) for part in found)
        return z, status, active
    scaled = scale(x, A, b, weights)
    planar = x.shape[-1] == 2 and (x.is_cuda or _few_rows_many_points(x, b))
    if method == "planar" or (method == "auto" and planar):
        y, status, active = _planar(scaled, tol)
    else:
        found = single.solve_each(scaled.rows.cpu().numpy(), scaled.bounds.cpu().numpy(), tol)
        y, status, active = (torch.from_numpy(part).to(x.device) for part in found)
    return x + (y if scaled.scale is None else y * scaled.scale), status, active


def _planar(scaled: Scaled, tol: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    y, found, pair = nearest_to_origin(scaled.rows, scaled.bounds, tol)
    # One column more than rows: -1 (no row) lands there and is cut off.
    marks = torch.zeros(len(y), scaled.bounds.shape[-1] + 1, dtype=torch.bool, device=y.device)
    active = marks.scatter_(1, pair % marks.shape[-1], True)[:, :-1]
    return y, torch.where(found, int(Status.SOLVED), int(Status.INFEASIBLE)).to(torch.int8), active


def _flatten(x: Array, A: Array, b: Array, weights: Array | None) -> tuple[tuple[int, ...], Array, Array, Array, Array]:
    """Broadcast batch dimensions and make them one: (shape, x [B, n], A [B, m, n], b [B, m], weights [B, n])."""
    count, size = A.shape[-2:]
    batches = [tuple(x.shape[:-1]), tuple(A.shape[:-2]), tuple(b.shape[:-1])]
    if weights is not None:
        batches.append(tuple(weights.shape[:-1]))
    try:
        shape = tuple(np.broadcast_shapes(*batches))
    except ValueError as error:
        raise ValueError(f"batch shapes of x, A, b, weights do not broadcast: {batches}") from error
    total = int(np.prod(shape))

    def spread(entry: Array, *tail: int) -> Array:
        if tuple(entry.shape) != (*shape, *tail):
            expand = torch.broadcast_to if isinstance(entry, torch.Tensor) else np.broadcast_to
            entry = expand(entry, (*shape, *tail))
        return entry.reshape(total, *tail)

    weights = None if weights is None else spread(weights, size)
    return shape, spread(x, size), spread(A, count, size), spread(b, count), weights


def _specification(
    x: np.ndarray, A: np.ndarray, b: np.ndarray, weights: np.ndarray | None, tol: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Here, because cvxpy takes a second to import and only tests and checks ask for it.
    from safety.projection import specification

    return specification.solve_each(x, A, b, weights, tol)


def _few_rows_many_points(x: Array, b: Array) -> bool:
    return x.shape[-1] == 2 and len(x) >= PLANAR_FROM and b.shape[-1] <= PLANAR_ROWS


def _check_method(method: Method, x: Array, *, needs_grad: bool) -> None:
    if method == "planar" and x.shape[-1] != 2:
        raise ValueError(f"method 'planar' needs n = 2, got n = {x.shape[-1]}; use 'daqp' or 'auto'")
    if method == "cvxpy" and needs_grad:
        raise ValueError("method 'cvxpy' is not differentiable; use 'auto', or detach the inputs")

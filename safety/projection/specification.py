"""The projection written down in cvxpy: slow, and what every fast solver is tested against.

The problem is posed in the caller's own numbers, without the shift and scaling of the fast paths, so that it checks
those too. One parametrised (DPP) problem per shape is kept: compiling takes longer than solving.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import cvxpy
import numpy as np

from safety.projection.problem import ZERO_ROW, Status


@lru_cache(maxsize=32)
def _problem(count: int, size: int) -> tuple[Any, ...]:
    z = cvxpy.Variable(size)
    # Weights enter as square roots, and the target already multiplied by them: products of parameters are not DPP.
    root, target = cvxpy.Parameter(size, nonneg=True), cvxpy.Parameter(size)
    A, b = cvxpy.Parameter((count, size)), cvxpy.Parameter(count)
    residual = cvxpy.multiply(root, z) - target  # type: ignore[attr-defined]
    objective = cvxpy.Minimize(cvxpy.sum_squares(residual))  # type: ignore[attr-defined]
    return cvxpy.Problem(objective, [A @ z <= b]), z, root, target, A, b


def solve_each(
    x: np.ndarray, A: np.ndarray, b: np.ndarray, weights: np.ndarray | None, tol: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """min sum w (z - x)^2 s.t. A z <= b for x [B, n], A [B, m, n], b [B, m]: (z [B, n], status [B], active [B, m])."""
    batch, size = x.shape
    count = b.shape[1]
    out = np.array(x)
    status = np.zeros(batch, dtype=np.int8)
    active = np.zeros((batch, count), dtype=bool)
    if count == 0:
        return out, status, active
    problem, z, root, target, rows, bounds = _problem(count, size)
    for k in range(batch):
        root.value = np.ones(size) if weights is None else np.sqrt(weights[k])
        target.value = root.value * x[k]
        free = np.isinf(b[k])  # no constraint; a solver cannot take an infinite bound
        rows.value = np.where(free[:, None], 0.0, A[k])
        bounds.value = np.where(free, 1.0, b[k])
        status[k] = int(_attempt(problem))
        if status[k] == Status.SOLVED:
            out[k] = z.value
            length = np.linalg.norm(A[k], axis=-1)
            near = np.abs(A[k] @ out[k] - np.where(free, np.inf, b[k])) <= max(1e-7, tol) * length
            active[k] = near & (length > ZERO_ROW)
    return out, status, active


def _attempt(problem: Any) -> Status:
    # An interior-point method may stall where the allowed set has no interior: looser then, and an active-set method
    # last.
    attempts: list[tuple[str, dict[str, float]]] = [
        (cvxpy.CLARABEL, dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), accuracy))
        for accuracy in (1e-11, 1e-9, 1e-8)
    ]
    for solver, options in [*attempts, (cvxpy.HIGHS, {})]:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # tried again, not accepted
                problem.solve(solver=solver, ignore_dpp=False, **options)
        except cvxpy.SolverError:
            continue
        if problem.status == cvxpy.OPTIMAL:
            return Status.SOLVED
        if problem.status == cvxpy.INFEASIBLE:
            return Status.INFEASIBLE
    return Status.FAILED

"""One projection after the other by DAQP, a dual active-set solver, and what decides when it cannot.

D. Arnstrom, A. Bemporad, D. Axehill, "A dual active-set solver for embedded quadratic programming using recursive LDL'
updates", IEEE Transactions on Automatic Control 67(8), 2022.
"""

from __future__ import annotations

import daqp
import numpy as np
import torch
from scipy.optimize import linprog, nnls

from safety.projection.planar import nearest_to_origin
from safety.projection.problem import Status

LIMIT = 10_000  # DAQP iterations


def solve_each(rows: np.ndarray, bounds: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """min |y|^2 s.t. rows y <= bounds for unit rows [B, m, n], bounds [B, m]: (y [B, n], status [B], active [B, m])."""
    batch, count, size = rows.shape
    y = np.zeros((batch, size))
    status = np.zeros(batch, dtype=np.int8)
    active = np.zeros((batch, count), dtype=bool)
    hessian, linear = np.eye(size), np.zeros(size)
    for k in np.flatnonzero((bounds < 0).any(-1)) if count else ():
        y[k], status[k], active[k] = _solve(rows[k], bounds[k], tol, hessian, linear)
    return y, status, active


def _solve(
    rows: np.ndarray, bounds: np.ndarray, tol: float, hessian: np.ndarray, linear: np.ndarray
) -> tuple[np.ndarray, int, np.ndarray]:
    none = np.zeros(len(bounds), dtype=bool)
    if bounds.min() == -np.inf:
        return linear, int(Status.INFEASIBLE), none
    keep: slice | np.ndarray = slice(None)
    if bounds.max() == np.inf:
        keep = np.flatnonzero(bounds < np.inf)
    kept_rows, kept_bounds = np.ascontiguousarray(rows[keep]), np.ascontiguousarray(bounds[keep])
    for slack in (0.0, tol):
        y, _, flag, info = daqp.solve(hessian, linear, kept_rows, kept_bounds + slack, primal_tol=tol, iter_limit=LIMIT)
        if flag == 1 and (kept_rows @ y - kept_bounds).max() <= 2 * tol:
            none[keep] = info["lam"] > 0
            return y, int(Status.SOLVED), none
        # DAQP says no: believe it only where something exact agrees.
        if slack == 0.0 and _excluded(kept_rows, kept_bounds, tol):
            return linear, int(Status.INFEASIBLE), none
        if len(linear) == 2:
            planar = nearest_to_origin(torch.from_numpy(kept_rows[None]), torch.from_numpy(kept_bounds[None]), tol)
            if not bool(planar.found[0]):
                return linear, int(Status.INFEASIBLE), none
            for row in planar.pair[0].tolist():
                if row >= 0:
                    none[np.arange(len(bounds))[keep][row]] = True
            return planar.y[0].numpy(), int(Status.SOLVED), none
        if slack == 0.0 and not _feasible(kept_rows, kept_bounds, tol):
            return linear, int(Status.INFEASIBLE), none
    return linear, int(Status.FAILED), none


def _excluded(rows: np.ndarray, bounds: np.ndarray, tol: float) -> bool:
    """Whether a Farkas certificate shows that no y has rows y <= bounds + tol: u >= 0, u rows = 0, u bounds = -1.

    Least squares with u >= 0 finds one if there is one (C. Lawson, R. Hanson, Solving Least Squares Problems, 1974,
    ch. 23), in a fraction of a linear programme's time.
    """
    try:
        u, _ = nnls(np.vstack([rows.T, bounds]), np.concatenate([np.zeros(rows.shape[1]), [-1.0]]))
    except RuntimeError:  # iteration limit: no certificate
        return False
    value = float(bounds @ u)
    if value >= 0:
        return False
    u = u / -value
    # A point within tol of all rows would need |u rows| |y| >= 1 - tol sum(u): it would be farther than 5e9 m away.
    return bool(tol * u.sum() < 0.5 and np.linalg.norm(u @ rows) < 1e-10)


def _feasible(rows: np.ndarray, bounds: np.ndarray, tol: float) -> bool:
    """Whether some y has rows y <= bounds + tol: a linear programme in the largest violation."""
    size = rows.shape[1]
    cost = np.zeros(size + 1)
    cost[-1] = 1.0
    result = linprog(
        cost,
        A_ub=np.hstack([rows, -np.ones((len(rows), 1))]),
        b_ub=bounds,
        bounds=[(None, None)] * size + [(0.0, None)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    # An LP that fails decides nothing: "feasible" leads to another attempt and, at worst, to FAILED.
    return not (result.status == 0 and float(result.fun) > tol)

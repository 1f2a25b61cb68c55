"""Random projection problems whose status is known by construction, to test solvers on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("feasible", "inside", "duplicate", "vertex", "equality", "vacuous", "infeasible", "opposed", "impossible")


@dataclass(frozen=True)
class ProjectionProblem:
    """x [n], A [m, n], b [m], weights [n] or None, whether it has an answer, and which kind of problem it is."""

    x: np.ndarray
    A: np.ndarray
    b: np.ndarray
    weights: np.ndarray | None
    feasible: bool
    kind: str


def random_problem(generator: np.random.Generator, kind: str, size: int, count: int) -> ProjectionProblem:
    """A problem of one of `KINDS` in `size` dimensions with about `count` rows, of order one metre.

    feasible: rows around a known point; inside: x already satisfies them; duplicate: rows repeated, some scaled;
    vertex: every row passes through one point; equality: a row and its negative (no interior); vacuous: zero rows and
    infinite bounds among others; infeasible: a positive combination of rows says 0 <= -gap (Farkas); opposed: two
    parallel rows that exclude each other; impossible: a zero row with a negative bound.
    Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    A = generator.normal(size=(count, size)) * np.exp(generator.normal(size=(count, 1)) * 0.7)
    point = generator.normal(size=size)
    x = point + generator.normal(size=size) * generator.choice([0.1, 1.0, 5.0])
    room = np.abs(generator.normal(size=count)) * generator.choice([0.05, 0.5]) * np.linalg.norm(A, axis=1)
    b = A @ point + room
    weights = np.exp(generator.normal(size=size) * 0.5) if generator.random() < 0.3 else None
    gap = 10.0 ** generator.uniform(-4, 0)
    if kind == "inside":
        x = point
    elif kind == "duplicate":
        repeat = generator.integers(0, count, size=count)
        factor = np.where(generator.random(count) < 0.5, 1.0, generator.uniform(0.2, 5.0, size=count))
        A, b = np.concatenate([A, A[repeat] * factor[:, None]]), np.concatenate([b, b[repeat] * factor])
    elif kind == "vertex":
        b = A @ point
    elif kind == "equality":
        b[0] = A[0] @ point
        A, b = np.concatenate([A, -A[:1]]), np.concatenate([b, -b[:1]])
    elif kind == "vacuous":
        A = np.concatenate([A, np.zeros((1, size)), generator.normal(size=(1, size))])
        b = np.concatenate([b, [abs(generator.normal())], [np.inf]])
    elif kind == "infeasible":
        share = generator.uniform(0.2, 1.0, size=count)
        last = -(share[:, None] * A).sum(0)
        bound = -(share * b).sum() - gap * np.linalg.norm(last)
        A, b = np.concatenate([A, last[None]]), np.concatenate([b, [bound]])
    elif kind == "opposed":
        A = np.concatenate([A, -A[:1]])
        b = np.concatenate([b, [-b[0] - gap * np.linalg.norm(A[0])]])
    elif kind == "impossible":
        A, b = np.concatenate([A, np.zeros((1, size))]), np.concatenate([b, [-gap]])
    order = generator.permutation(len(b))
    feasible = kind not in ("infeasible", "opposed", "impossible")
    return ProjectionProblem(x, A[order], b[order], weights, feasible, kind)

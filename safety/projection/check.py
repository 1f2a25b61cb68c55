"""Compare the fast projections with cvxpy on random problems: `python -m safety.projection.check --out FILE`."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from safety._report import commit, machine, write_whole
from safety.projection.problem import Status
from safety.projection.problems import KINDS, ProjectionProblem, random_problem
from safety.projection.project import Method, project

SIZES = (2, 2, 2, 3, 5, 8)  # dimensions drawn from: half of the problems are planar
OBJECTIVE_MARK = 1e-6
FEASIBILITY_MARK = 1e-7


def compare(problems: int, seed: int) -> dict[str, Any]:
    """Solve `problems` random problems by every method; agreement in objective, feasibility and status.

    Status is judged against the construction of the problem, objectives against cvxpy where cvxpy has an answer.
    """
    if problems < 1:
        raise ValueError(f"problems must be >= 1, got {problems}")
    generator = np.random.default_rng(seed)
    methods: tuple[Method, ...] = ("cvxpy", "daqp", "planar", "auto")
    rows = {method: _Tally() for method in methods}
    for index in range(problems):
        size = int(generator.choice(SIZES))
        problem = random_problem(generator, KINDS[index % len(KINDS)], size, int(generator.integers(1, 17)))
        reference: float | None = None
        for method in methods:
            if method == "planar" and size != 2:
                continue
            objective = rows[method].add(problem, method, reference)
            if method == "cvxpy":
                reference = objective
    return {method: tally.summary() for method, tally in rows.items()}


class _Tally:
    def __init__(self) -> None:
        self.count = 0
        self.wrong: Counter[str] = Counter()
        self.gap = 0.0
        self.violation = 0.0
        self.over: Counter[str] = Counter()
        self.infeasible = 0
        self.flagged = 0
        self.seconds = 0.0

    def add(self, problem: ProjectionProblem, method: Method, reference: float | None) -> float | None:
        """Solve, count, and return the objective (None where the method has no answer)."""
        start = time.perf_counter()
        answer = project(problem.x, problem.A, problem.b, method=method, weights=problem.weights)
        self.seconds += time.perf_counter() - start
        self.count += 1
        status = Status(int(answer.status))
        expected = Status.SOLVED if problem.feasible else Status.INFEASIBLE
        self.infeasible += not problem.feasible
        self.flagged += not problem.feasible and status == Status.INFEASIBLE
        if status != expected:
            self.wrong[f"{problem.kind}: {status.name.lower()}"] += 1
        if status != Status.SOLVED or not problem.feasible:
            return None
        weights = 1.0 if problem.weights is None else problem.weights
        objective = float((weights * np.square(answer.x - problem.x)).sum())
        # Violation in metres, whatever the length of the caller's rows.
        length = np.linalg.norm(problem.A, axis=1)
        held = length > 0
        violation = float(((problem.A[held] @ answer.x - problem.b[held]) / length[held]).max(initial=0.0))
        self.violation = max(self.violation, violation)
        if violation > FEASIBILITY_MARK:
            self.over[f"violation, {problem.kind}"] += 1
        if reference is not None:
            gap = abs(objective - reference) / max(1.0, reference)
            self.gap = max(self.gap, gap)
            if gap > OBJECTIVE_MARK:
                self.over[f"objective, {problem.kind}"] += 1
        return objective

    def summary(self) -> dict[str, Any]:
        return {
            "problems": self.count,
            "wrong_status": dict(self.wrong),
            "over_mark": dict(self.over),
            "max_objective_gap": self.gap,
            "max_violation_m": self.violation,
            "infeasible": self.infeasible,
            "infeasible_flagged": self.flagged,
            "mean_us": 1e6 * self.seconds / self.count if self.count else None,
        }


def speed(seed: int, repeats: int = 21) -> dict[str, float]:
    """Median microseconds per planar point with 16 rows, all of `project` included; one torch thread."""
    import torch

    torch.set_num_threads(1)
    generator = np.random.default_rng(seed)
    result: dict[str, float] = {}
    cases: tuple[tuple[Method, int], ...] = (
        ("cvxpy", 1), ("daqp", 1), ("auto", 1), ("daqp", 256), ("planar", 64), ("planar", 256), ("auto", 256)
    )  # fmt: skip
    for method, batch in cases:
        parts = [random_problem(generator, "feasible", 2, 16) for _ in range(batch)]
        x, A, b = (np.stack([getattr(part, name) for part in parts]) for name in ("x", "A", "b"))
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            project(x, A, b, method=method)
            times.append(time.perf_counter() - start)
        result[f"{method}, batch {batch}"] = round(1e6 * float(np.median(times)) / batch, 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="where to write the JSON")
    options = parser.parse_args()
    report = {
        "problems": options.problems,
        "seed": options.seed,
        "commit": commit(),
        "marks": {"objective": OBJECTIVE_MARK, "feasibility_m": FEASIBILITY_MARK},
        "methods": compare(options.problems, options.seed),
        "us_per_point_16_rows": speed(options.seed),
        "machine": machine(),
    }
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if options.out is not None:
        write_whole(options.out, text)


if __name__ == "__main__":
    main()

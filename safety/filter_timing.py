"""What one filtered step takes: `python -m safety.filter_timing --out FILE`.

Two things are timed. The projection step: a wanted action onto 16 linear constraints, checks and report included,
alone, in a batch of 256, and by cvxpy with DPP parameters. The backup-set filter: a whole `filter` call beside 16
obstacles that all lie within reach. The cases take turns in every round, and ratios are medians of the rounds' own, so
that a machine busy with other work changes figures little and ratios less.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from safety._report import commit, machine, write_whole
from safety.dynamics import dynamics_for
from safety.moving_filter import MovingFilter
from safety.projection import project
from safety.projection.problems import random_problem
from safety.scene import KIND_ID, Scene

CONSTRAINTS, BATCH = 16, 256
MARKS = {"projection, single, us": 150.0, "projection, batch of 256, us each": 15.0, "cvxpy over single": 10.0}


def cases(seed: int) -> dict[str, tuple[Callable[[], object], int, int]]:
    """Name -> (call, steps that one call filters, calls per round)."""
    generator = np.random.default_rng(seed)
    problems = [random_problem(generator, "feasible", 2, CONSTRAINTS) for _ in range(BATCH)]
    x, A, b = (np.stack([getattr(problem, name) for problem in problems]) for name in ("x", "A", "b"))
    dynamics = dynamics_for("point")
    shield = MovingFilter(dynamics)
    angles = generator.uniform(0, 2 * np.pi, CONSTRAINTS)
    ring = np.stack([np.cos(angles), np.sin(angles)], -1) * generator.uniform(0.5, 0.7, (CONSTRAINTS, 1))
    ring[0] = 0.42, 0.0  # one straight ahead

    def scene(speed: float, along: float) -> Scene:
        velocities = np.zeros((CONSTRAINTS, 2))
        velocities[0] = -along, 0.0
        kinds = np.full(CONSTRAINTS, KIND_ID["hazards"])
        state = np.array([0, 0, 0, speed, 0, 0.0])
        return Scene(state, ring, velocities, kinds, np.full(CONSTRAINTS, 0.2), np.zeros(CONSTRAINTS))

    forward = np.asarray(dynamics.command(np.array([1.0, 0.0])))
    braked = np.asarray(dynamics.command(np.array([-1.0, 0.0])))
    driving, coming = scene(1.25, 0.0), scene(0.3, 0.4)
    return {
        "projection, single": (lambda: project(x[0], A[0], b[0]), 1, 5),
        "projection, batch of 256": (lambda: project(x, A, b), BATCH, 1),
        "projection, cvxpy with DPP parameters": (lambda: project(x[0], A[0], b[0], method="cvxpy"), 1, 1),
        "backup-set filter, passing": (lambda: shield.filter(driving, braked), 1, 5),
        "backup-set filter, intervening": (lambda: shield.filter(driving, forward), 1, 1),
        "backup-set filter, an obstacle coming": (lambda: shield.filter(coming, forward), 1, 1),
    }


def timing(seed: int, rounds: int = 100) -> dict[str, Any]:
    """Median microseconds per step by the clock and of processor time, ratios to the single projection, the marks."""
    import torch

    torch.set_num_threads(1)
    table = cases(seed)
    for call, _, _ in table.values():
        call()
    wall: dict[str, list[float]] = {name: [] for name in table}
    processor: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(rounds):
        for name, (call, steps, repeats) in table.items():
            busy, clock = time.process_time(), time.perf_counter()
            for _ in range(repeats):
                call()
            wall[name].append(1e6 * (time.perf_counter() - clock) / (steps * repeats))
            processor[name].append(1e6 * (time.process_time() - busy) / (steps * repeats))
    base = np.array(processor["projection, single"])
    rows = {
        name: {
            "wall_us": round(float(np.median(wall[name])), 2),
            "processor_us": round(float(np.median(processor[name])), 2),
            "ratio_to_single": round(float(np.median(np.array(processor[name]) / base)), 3),
        }
        for name in table
    }
    reached = {
        "projection, single, us": rows["projection, single"]["wall_us"],
        "projection, batch of 256, us each": rows["projection, batch of 256"]["wall_us"],
        "cvxpy over single": rows["projection, cvxpy with DPP parameters"]["ratio_to_single"],
    }
    marks = {
        name: {"mark": mark, "reached": reached[name], "met": _met(name, reached[name])} for name, mark in MARKS.items()
    }
    return {"rounds": rounds, "constraints": CONSTRAINTS, "rows": rows, "marks": marks}


def _met(name: str, value: float) -> bool:
    return value >= MARKS[name] if name.startswith("cvxpy") else value <= MARKS[name]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="where to write the JSON")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    report = {
        **timing(options.seed, options.rounds),
        "commit": commit(),
        "machine": machine(),
    }
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if options.out is not None:
        write_whole(options.out, text)


if __name__ == "__main__":
    main()

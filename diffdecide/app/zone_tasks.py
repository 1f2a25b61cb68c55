"""Random zone tasks, for evaluations without sentences."""

from __future__ import annotations

import numpy as np

from safety.tasks.spec import CAUTIONS, TASK_KINDS, ZONES, TaskSpec


def random_task(generator: np.random.Generator) -> TaskSpec:
    """A task with kind, zones and caution drawn uniformly; no zone appears twice."""
    kind = TASK_KINDS[int(generator.integers(len(TASK_KINDS)))]
    zones = [ZONES[int(index)] for index in generator.permutation(len(ZONES))]
    count = {"reach": 1, "stay": 1, "avoid": int(generator.integers(1, 3)), "sequence": int(generator.integers(2, 4))}
    targets = zones[: count[kind]]
    avoid = zones[len(targets) : len(targets) + 1] if kind == "avoid" else []
    caution = CAUTIONS[int(generator.integers(len(CAUTIONS)))]
    return TaskSpec(kind, tuple(targets), tuple(avoid), caution)


def task_of_seed(seed: int) -> TaskSpec:
    """The task of the episode with this seed, whatever the run it belongs to."""
    # A stream of its own: the layout of the same seed is drawn from default_rng(seed)-like streams.
    return random_task(np.random.default_rng([seed, 0x7A5C]))

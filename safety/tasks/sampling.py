"""Random tasks for collecting data and for tests."""

from __future__ import annotations

import numpy as np

from safety.tasks.spec import CAUTIONS, TASK_KINDS, ZONES, TaskSpec


def random_task(rng: np.random.Generator) -> TaskSpec:
    """A task with its kind, zones and caution drawn uniformly."""
    kind = str(rng.choice(TASK_KINDS))
    zones = [str(zone) for zone in rng.permutation(ZONES)]
    targets = {"reach": 1, "stay": 1, "sequence": int(rng.integers(2, 4)), "avoid": int(rng.integers(1, 3))}[kind]
    avoid = int(rng.integers(1, 3)) if kind == "avoid" else 0
    return TaskSpec(
        kind=kind,
        targets=tuple(zones[:targets]),
        avoid=tuple(zones[targets : targets + avoid]),
        caution=str(rng.choice(CAUTIONS)),
    )

"""Random zone tasks, for evaluations without sentences."""

from __future__ import annotations

import numpy as np

from safety.tasks.sampling import random_task
from safety.tasks.spec import TaskSpec


def task_of_seed(seed: int) -> TaskSpec:
    """The task of the episode with this seed, whatever the run it belongs to."""
    # A stream of its own: the layout of the same seed is drawn from default_rng(seed)-like streams.
    return random_task(np.random.default_rng([seed, 0x7A5C]))

"""Training budgets in seconds of one core, the same for loops of ours and for trainers that count steps.

Processor time, not the clock on the wall: where nothing else runs the two agree, and where something does, the budget
of no method shrinks.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROBE_STEPS = 30


class Stopwatch:
    """Seconds of processor time (`spent`) and on the wall (`wall`) since it was made."""

    def __init__(self) -> None:
        self._began, self._wall = time.process_time(), time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds of processor time of this process, all threads."""
        return time.process_time() - self._began

    @property
    def wall(self) -> float:
        """Seconds on the wall."""
        return time.monotonic() - self._wall


def steps_within(seconds: float, run: Callable[[int, Path], object]) -> int:
    """How many optimizer steps fit into `seconds`, from two short runs in a folder that is thrown away.

    Two, so that what does not grow with the steps (saving, calibration) does not count as their time.

    Args:
        run: trains for so many steps into a folder.

    Raises:
        ValueError: a budget that is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"the training budget must be a positive number of seconds, got {seconds}")
    spent = []
    with tempfile.TemporaryDirectory() as folder:
        run(1, Path(folder) / "warm-up")
        for steps in (1, 1 + PROBE_STEPS):
            watch = Stopwatch()
            run(steps, Path(folder) / str(steps))
            spent.append(watch.spent)
    return max(1, int(seconds / max(1e-6, (spent[1] - spent[0]) / PROBE_STEPS)))


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Compute on one thread: budgets are stated per core."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

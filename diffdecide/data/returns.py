"""What is still to come: rewards and costs from each step on.

A time-out is not an end: the task would have gone on (Pardo et al. 2018, "Time Limits in Reinforcement Learning").
Sums that look past one are continued by a rate per step instead of zeros; behind a terminal there is nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from diffdecide.data.episode import Episode


@dataclass(frozen=True)
class ToGo:
    """Sums from each step of an episode on, the step itself included; all [T] float32."""

    return_to_end: np.ndarray  # undiscounted, to the last recorded step
    cost_to_end: np.ndarray
    return_to_go: np.ndarray  # discounted over the horizon, continued behind a time-out
    cost_to_go: np.ndarray


def to_end(values: np.ndarray) -> np.ndarray:
    """Undiscounted sums [T] of `values` [T] from each step to the last one."""
    return np.cumsum(np.asarray(values, dtype=np.float64)[::-1])[::-1].astype(np.float32)


def discounted_to_go(
    values: np.ndarray, *, discount: float, horizon: int | None = None, rate_after: float = 0.0
) -> np.ndarray:
    """sum_{k < horizon} discount^k values[t + k] for every t.

    Args:
        values: [T]
        discount: in (0, 1]
        horizon: steps looked ahead; None for all, which needs discount < 1 if `rate_after` is not 0
        rate_after: value per step behind the end of `values`: 0 behind a terminal; behind a time-out an estimate such
            as the episode's mean, or (1 - discount) V(s_T) for a value function V

    Returns:
        [T] float32
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"values: expected [T] with T >= 1, got shape {array.shape}")
    if not 0 < discount <= 1:
        raise ValueError(f"discount: expected in (0, 1], got {discount}")
    if horizon is None:
        if rate_after and discount == 1:
            raise ValueError("horizon: expected a number of steps, got None with discount 1: the sum is infinite")
        behind = rate_after / (1 - discount) if rate_after else 0.0
        backwards = accumulate(array[::-1].tolist(), lambda later, value: value + discount * later, initial=behind)
        return np.fromiter(backwards, np.float64, len(array) + 1)[:0:-1].astype(np.float32)
    if horizon < 1:
        raise ValueError(f"horizon: expected >= 1 or None, got {horizon}")
    extended = np.concatenate([array, np.full(horizon - 1, rate_after)])
    return np.correlate(extended, discount ** np.arange(horizon), mode="valid").astype(np.float32)


def to_go(episode: Episode, *, discount: float, horizon: int | None) -> ToGo:
    """All four sums of an episode; behind a time-out or an open end the episode's own mean per step continues.

    That mean has far less variance than the last few steps scaled up, and is right where the task does not change
    with time (goals that reappear).
    """
    sums = {}
    for name, values in (("return", episode.rewards), ("cost", episode.costs)):
        rate = 0.0 if episode.terminals[-1] else float(values.mean(dtype=np.float64))
        sums[f"{name}_to_end"] = to_end(values)
        # Without discount an endless sum has no continuation: it is the sum to the end.
        after = 0.0 if horizon is None and math.isclose(discount, 1.0) else rate
        sums[f"{name}_to_go"] = discounted_to_go(values, discount=discount, horizon=horizon, rate_after=after)
    return ToGo(**sums)

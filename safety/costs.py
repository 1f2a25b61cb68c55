"""Costs of episodes: tails, cost-to-go, budgets, and the normalised scores of the DSRL protocol.

Scores follow Z. Liu et al., "Datasets and Benchmarks for Offline Safe Reinforcement Learning" (DSRL), 2023, sec. 5:
R = (return - Rmin) / (Rmax - Rmin), C = cost / limit, safe means C <= 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
COST_LIMITS = (20.0, 40.0, 80.0)  # the limits DSRL averages over on Safety-Gymnasium
STRICT_COST_LIMIT = 10.0  # FISOR's


@dataclass(frozen=True)
class ScoreRange:
    """Smallest and largest return of DSRL's data set for a task, and its largest episode cost."""

    low: float
    high: float
    max_cost: float


SCORE_RANGES = {
    "PointGoal1": ScoreRange(0.012, 30.071, 100),
    "PointGoal2": ScoreRange(0.003, 27.718, 200),
    "PointButton1": ScoreRange(0.009, 41.193, 200),
    "PointPush1": ScoreRange(0.001, 16.519, 150),
    "PointCircle1": ScoreRange(20.068, 61.728, 200),
    "CarGoal1": ScoreRange(0.012, 39.908, 120),
    "CarGoal2": ScoreRange(0.001, 28.903, 200),
    "CarButton1": ScoreRange(0.003, 44.42, 250),
    "CarPush1": ScoreRange(0.014, 16.304, 200),
    "CarCircle1": ScoreRange(8.037, 24.942, 250),
    "HalfCheetahVelocity": ScoreRange(5.751, 2806.933, 250),
    "AntVelocity": ScoreRange(6.152, 2976.277, 250),
    "HopperVelocity": ScoreRange(37.052, 1911.397, 250),
    "SwimmerVelocity": ScoreRange(0.071, 238.958, 200),
    "Walker2dVelocity": ScoreRange(18.668, 3418.224, 300),
}


def score_range(env_id: str) -> ScoreRange:
    """The constants of an environment id: "SafetyPointGoal1-v0", DSRL's "OfflinePointGoal1Gymnasium-v0", or the task.

    Raises ValueError for an id without published constants.
    """
    match = re.fullmatch(r"(?:Safety|Offline)?(\w+?)(?:Gymnasium)?(?:-v\d+)?", env_id)
    task = match.group(1) if match else env_id
    if task not in SCORE_RANGES:
        raise ValueError(f"no published score range for {env_id!r}; there is one for {', '.join(SCORE_RANGES)}")
    return SCORE_RANGES[task]


def normalised_score(env_id: str, returns: npt.ArrayLike) -> Any:
    """(return - Rmin) / (Rmax - Rmin) of undiscounted episode returns [...]; 0 to 1 is the range of DSRL's data."""
    constants = score_range(env_id)
    result = (np.asarray(returns, dtype=np.float64) - constants.low) / (constants.high - constants.low)
    return float(result) if result.ndim == 0 else result


def normalised_cost(costs: npt.ArrayLike, limit: float | Sequence[float] = COST_LIMITS) -> Any:
    """cost / limit of undiscounted episode costs [...], averaged over several limits; safe means <= 1.

    Raises ValueError for a limit that is not positive: a zero limit has no normalised cost.
    """
    limits = np.atleast_1d(np.asarray(limit, dtype=np.float64))
    if limits.size == 0 or not np.isfinite(limits).all() or (limits <= 0).any():
        raise ValueError(f"limit must be one or more finite positive numbers, got {limit}")
    result = np.asarray(costs, dtype=np.float64) * float(np.mean(1.0 / limits))
    return float(result) if result.ndim == 0 else result


def cvar(values: npt.ArrayLike, alpha: float = 0.1, *, axis: int = -1) -> Any:
    """Mean of the worst (largest) share `alpha` of the values along `axis`; alpha = 1 is the mean.

    The share may cut a value: of 25 values and alpha = 0.1 the worst two count fully and the third by half (R. T.
    Rockafellar, S. Uryasev, "Conditional value-at-risk for general loss distributions", 2002, prop. 8).
    Raises ValueError for no values, NaN, or alpha outside (0, 1].
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[axis] == 0:
        raise ValueError(f"values must hold at least one entry along axis {axis}, got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"values must not be NaN, got {int(np.isnan(array).sum())} NaN of {array.size}")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}")
    worst = -np.sort(-np.moveaxis(array, axis, -1), axis=-1)
    count = worst.shape[-1]
    # A count within rounding of an integer is that integer: 0.1 * 30 is not 3.0000000000000004 values.
    share = alpha * count
    share = round(share) if math.isclose(share, round(share), rel_tol=1e-12) and round(share) else share
    weights = np.clip(share - np.arange(count), 0.0, 1.0)
    used = weights > 0  # an infinite value outside the tail must not become 0 * inf
    result = (worst[..., used] * weights[used]).sum(-1) / weights.sum()
    return float(result) if result.ndim == 0 else result


def cost_to_go(
    costs: npt.ArrayLike,
    *,
    gamma: float,
    terminals: npt.ArrayLike | None = None,
    timeouts: npt.ArrayLike | None = None,
    next_values: npt.ArrayLike | None = None,
    bootstrap: Literal["values", "none"] = "values",
) -> Floats:
    """Discounted cost-to-go [N] of a row of steps: G_t = c_t + gamma * G_{t+1}, episode by episode.

    costs: [N], episodes one after the other. terminals: [N] bool, the step ended its episode for good: nothing follows.
    timeouts: [N] bool, the clock ended it: the task would have gone on, so G_t = c_t + gamma * next_values[t], where
    next_values [N] is an estimate of the cost-to-go of the state after step t. A last episode left open counts as timed
    out. bootstrap "none" takes nothing after a time-out instead (right for "cost within the episode", gamma = 1; wrong,
    because too low, for a stationary task). Where both flags are set the step is terminal.

    Raises ValueError for wrong shapes, NaN, gamma outside [0, 1], or a time-out to bootstrap without next_values.
    """
    flow = _flat("costs", costs)
    count = len(flow)
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    if bootstrap not in ("values", "none"):
        raise ValueError(f"bootstrap must be 'values' or 'none', got {bootstrap!r}")
    ended = np.zeros(count, dtype=bool) if terminals is None else _flat("terminals", terminals, count) != 0
    cut = np.zeros(count, dtype=bool) if timeouts is None else _flat("timeouts", timeouts, count) != 0
    if count and not ended[-1]:
        cut[-1] = True
    cut &= ~ended
    tail = np.zeros(count)
    if next_values is not None:
        tail = _flat("next_values", next_values, count)
    elif bootstrap == "values" and cut.any() and gamma > 0:
        raise ValueError(
            f"next_values is needed to bootstrap {int(cut.sum())} time-outs (or open ends); "
            "pass bootstrap='none' to take nothing after them"
        )
    if bootstrap == "none":
        tail = np.zeros(count)
    result = np.empty(count)
    following = 0.0
    for step in range(count - 1, -1, -1):
        if ended[step]:
            following = 0.0
        elif cut[step]:
            following = tail[step]
        following = flow[step] + gamma * following
        result[step] = following
    return result


def _flat(name: str, values: npt.ArrayLike, count: int | None = None) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (count is not None and len(array) != count):
        raise ValueError(f"{name} must have shape [{'N' if count is None else count}], got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {int((~np.isfinite(array)).sum())} NaN or infinite entries")
    return array


class Budget:
    """What may still be spent of a cost limit in this episode, and on whose word it was spent.

    Where the environment does not report the cost, the predicted cost is charged instead; `report` keeps the two apart.
    `remaining` may become negative: the budget is overdrawn, not forgotten.
    """

    def __init__(self, limit: float) -> None:
        """limit: total cost per episode >= 0, +inf for none. Raises ValueError for a negative limit or NaN."""
        if math.isnan(limit) or limit < 0:
            raise ValueError(f"limit must be >= 0 (or inf), got {limit}")
        self.limit = float(limit)
        self.reset()

    def reset(self) -> None:
        """A new episode: nothing spent."""
        self.observed = 0.0
        self.predicted = 0.0
        self.observed_steps = 0
        self.predicted_steps = 0

    def spend(self, cost: float | None, *, predicted: float | None = None) -> float:
        """Charge one step: `cost` where it was observed, else `predicted`; returns what remains.

        Raises ValueError if neither is given, or for a negative or non-finite amount.
        """
        amount, source = (cost, "cost") if cost is not None else (predicted, "predicted")
        if amount is None:
            raise ValueError("spend needs an observed cost or a predicted one, got neither")
        if not math.isfinite(amount) or amount < 0:
            raise ValueError(f"{source} must be finite and >= 0, got {amount}")
        if source == "cost":
            self.observed += float(amount)
            self.observed_steps += 1
        else:
            self.predicted += float(amount)
            self.predicted_steps += 1
        return self.remaining

    @property
    def spent(self) -> float:
        return self.observed + self.predicted

    @property
    def remaining(self) -> float:
        """limit - spent; negative when overdrawn."""
        return self.limit - self.spent

    @property
    def source(self) -> Literal["none", "observed", "predicted", "mixed"]:
        """On whose word the money was spent."""
        if self.observed_steps and self.predicted_steps:
            return "mixed"
        if self.predicted_steps:
            return "predicted"
        return "observed" if self.observed_steps else "none"

    def report(self) -> dict[str, float | int | bool | str]:
        """Everything above as plain values, with fixed keys."""
        return {
            "limit": self.limit,
            "spent": self.spent,
            "remaining": self.remaining,
            "exceeded": self.remaining < 0,
            "source": self.source,
            "observed": self.observed,
            "predicted": self.predicted,
            "observed_steps": self.observed_steps,
            "predicted_steps": self.predicted_steps,
        }

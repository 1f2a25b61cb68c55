"""Means with bootstrap intervals, for few and for degenerate samples too."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap confidence interval. `low` and `high` are nan for a single sample."""

    mean: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Interval:
        """What `to_dict` gave, also after JSON, which has null for nan."""
        low, high = (math.nan if data[name] is None else float(data[name]) for name in ("low", "high"))
        return cls(float(data["mean"]), low, high, int(data["count"]))

    def __str__(self) -> str:
        if not math.isfinite(self.low):
            return f"{self.mean:.3g}"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, *, confidence: float = 0.95, resamples: int = 5000, seed: int = 0
) -> Interval:
    """Mean of `values` [N] with a bootstrap interval.

    Bias-corrected and accelerated (Efron 1987); by percentiles where the acceleration is not defined. The resampling
    is seeded, so the same values always give the same interval.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"bootstrap_mean needs a non-empty 1-d sample, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"bootstrap_mean needs finite values, got {int((~np.isfinite(sample)).sum())} that are not")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    if np.ptp(sample) == 0:
        return Interval(mean, mean, mean, sample.size)
    from scipy.stats import bootstrap  # half a second to import

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the degenerate case is answered by the next method
            result = bootstrap(
                (sample,),
                np.mean,
                confidence_level=confidence,
                n_resamples=resamples,
                method=method,
                batch=max(1, 2_000_000 // sample.size),
                rng=np.random.default_rng(seed),
            )
        low, high = (float(bound) for bound in result.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            return Interval(mean, low, high, sample.size)
    return Interval(mean, math.nan, math.nan, sample.size)


def paired_difference(
    ours: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of the mean of `ours - theirs` [N], paired by position (the same seeds in the same order)."""
    left, right = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"paired samples must have one shape, got {left.shape} and {right.shape}")
    return bootstrap_mean(left - right, confidence=confidence, seed=seed)

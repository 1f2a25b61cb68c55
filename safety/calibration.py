"""How far predictions of cost can be trusted, measured on episodes that training has not seen.

Conformal prediction (V. Vovk, A. Gammerman, G. Shafer, 2005; one-sided split form) turns held-out errors into margins
with a guarantee; conformal risk control (A. Angelopoulos et al., 2022) turns them into thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def conformal_quantile(scores: npt.ArrayLike, miss: float) -> float:
    """The bound that a further score exceeds with probability at most `miss`, from exchangeable `scores` [N].

    It is the ceil((N + 1)(1 - miss))-th smallest score, or +inf where N is too small to promise that much.

    Raises:
        ValueError: no scores, NaN among them, or `miss` outside (0, 1).
    """
    values = _numbers("scores", scores)
    if not 0 < miss < 1:
        raise ValueError(f"miss must lie in (0, 1), got {miss}")
    rank = math.ceil((len(values) + 1) * (1 - miss) - 1e-9)
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else math.inf


def per_episode(values: npt.ArrayLike, episodes: npt.ArrayLike) -> Floats:
    """The largest value of each episode [M]: steps of one episode are not exchangeable, episodes are."""
    numbers, groups = _numbers("values", values), np.asarray(episodes)
    if groups.shape != numbers.shape:
        raise ValueError(f"episodes must have shape {numbers.shape}, got {groups.shape}")
    _, where = np.unique(groups, return_inverse=True)
    worst = np.full(where.max() + 1, -np.inf)
    np.maximum.at(worst, where, numbers)
    return worst


def risk_threshold(risk: npt.ArrayLike, harmed: npt.ArrayLike, miss: float) -> float:
    """The largest threshold so that passing what has risk <= threshold lets harm happen with probability <= `miss`.

    Conformal risk control for the loss "passed and harmed", monotone in the threshold: the largest t with
    (sum_i [risk_i <= t and harmed_i] + 1) / (N + 1) <= miss; -inf where even passing nothing cannot be promised.

    Args:
        risk: [N] predicted, one per exchangeable unit (an episode's riskiest step, or steps drawn far apart).
        harmed: [N] bool, whether harm followed.

    Raises:
        ValueError: shapes that do not fit, NaN, or `miss` outside (0, 1).
    """
    values, bad = _numbers("risk", risk), np.asarray(harmed).astype(bool)
    if bad.shape != values.shape:
        raise ValueError(f"harmed must have shape {values.shape}, got {bad.shape}")
    if not 0 < miss < 1:
        raise ValueError(f"miss must lie in (0, 1), got {miss}")
    allowed = math.floor(miss * (len(values) + 1) - 1 + 1e-9)
    if allowed < 0:
        return -math.inf
    order = np.sort(values[bad])
    if len(order) <= allowed:
        return float(values.max())
    # Just below the first harmful case that is one too many.
    below = values[values < order[allowed]]
    return float(below.max()) if len(below) else -math.inf


def boundary_margin(risk: npt.ArrayLike, violation: npt.ArrayLike, miss: float, *, share: float = 0.1) -> float:
    """How far below the boundary (0) a feasibility critic must put a step that is kept with probability 1 - `miss`.

    A filter lets its policy go up to the threshold, so what counts is by how much the critic is mistaken there and not
    where all is clear: the conformal quantile of violation - risk among the `share` of steps nearest to the boundary.

    Args:
        risk: [N] predicted value of steps, positive where a violation is unavoidable.
        violation: [N] of the state after each step, in the same unit, positive where the limit is broken. The true
            value is at least that, so a critic that is right is never exceeded.

    Returns:
        A margin >= 0; +inf where the steps are too few to promise it.

    Raises:
        ValueError: shapes that do not fit, NaN, or `miss` or `share` outside (0, 1).
    """
    values, broken = _numbers("risk", risk), _numbers("violation", violation)
    if broken.shape != values.shape:
        raise ValueError(f"violation must have shape {values.shape}, got {broken.shape}")
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    nearest = np.argsort(np.abs(values))[: math.ceil(share * len(values))]
    return max(0.0, conformal_quantile(broken[nearest] - values[nearest], miss))


@dataclass(frozen=True)
class Calibration:
    """Predicted against realised cost-to-go on held-out episodes.

    Attributes:
        steps, episodes: how many were compared.
        bias: mean of predicted - realised.
        mean_absolute_error: of the prediction.
        correlation: of predicted and realised; None where one of them is constant.
        miss: probability behind the margins.
        step_margin: to be added to a prediction so that a step's realised cost exceeds it with probability <= `miss`.
        episode_margin: the same for all steps of an episode at once.
        bins: predicted and realised means in bins of equal numbers of steps, lowest predictions first.
        levels, coverage: quantile levels and the share of realised costs at or below the predicted quantile.
    """

    steps: int
    episodes: int
    bias: float
    mean_absolute_error: float
    correlation: float | None
    miss: float
    step_margin: float
    episode_margin: float
    bins: tuple[dict[str, float], ...]
    levels: tuple[float, ...] = ()
    coverage: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values; a margin that cannot be promised is None."""
        values = asdict(self)
        for name in ("step_margin", "episode_margin"):
            values[name] = values[name] if math.isfinite(values[name]) else None
        return values


def calibrate(
    predicted: npt.ArrayLike,
    realised: npt.ArrayLike,
    episodes: npt.ArrayLike,
    *,
    miss: float = 0.1,
    bins: int = 10,
    quantiles: npt.ArrayLike | None = None,
    levels: Sequence[float] = (),
) -> Calibration:
    """Compare predictions [N] with what came [N]; `episodes` [N] says which steps belong together.

    Args:
        quantiles: [N, Q] predicted quantiles at `levels`, for their coverage.

    Raises:
        ValueError: shapes that do not fit, NaN, or settings out of range.
    """
    guess, truth = _numbers("predicted", predicted), _numbers("realised", realised)
    groups = np.asarray(episodes)
    if truth.shape != guess.shape or groups.shape != guess.shape:
        raise ValueError(f"predicted {guess.shape}, realised {truth.shape} and episodes {groups.shape} must fit")
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    covered: tuple[float, ...] = ()
    if quantiles is not None:
        table = np.asarray(quantiles, dtype=np.float64)
        if table.shape != (len(guess), len(levels)):
            raise ValueError(f"quantiles must be [{len(guess)}, {len(levels)}] for the levels, got {table.shape}")
        covered = tuple(float(share) for share in (truth[:, None] <= table + 1e-9).mean(0))
    shortfall = truth - guess
    varied = guess.std() > 0 and truth.std() > 0
    # One step per episode: steps of the same episode would count one surprise many times.
    generator = np.random.default_rng(0)
    unique = np.unique(groups)
    single = [shortfall[generator.choice(np.flatnonzero(groups == number))] for number in unique]
    return Calibration(
        steps=len(guess),
        episodes=len(unique),
        bias=float(-shortfall.mean()),
        mean_absolute_error=float(np.abs(shortfall).mean()),
        correlation=float(np.corrcoef(guess, truth)[0, 1]) if varied else None,
        miss=miss,
        step_margin=conformal_quantile(single, miss),
        episode_margin=conformal_quantile(per_episode(shortfall, groups), miss),
        bins=tuple(
            {"predicted": float(guess[part].mean()), "realised": float(truth[part].mean()), "steps": len(part)}
            for part in np.array_split(np.argsort(guess, kind="stable"), min(bins, len(guess)))
        ),
        levels=tuple(float(level) for level in levels) if quantiles is not None else (),
        coverage=covered,
    )


def _numbers(name: str, values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} must be [N] with N > 0, got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} must not hold NaN, got {int(np.isnan(array).sum())} of {len(array)}")
    return array

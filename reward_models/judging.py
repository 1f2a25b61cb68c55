"""How good a learned reward is: accuracy against what is possible, agreement with the true return, over-optimisation.

EPIC is Gleave et al. 2021, "Quantifying Differences in Reward Functions", definitions 4.1 and 4.7. The over-
optimisation curve follows Gao et al. 2023, "Scaling Laws for Reward Model Overoptimization".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffdecide.data.episode import Episode
from diffdecide.intervals import bootstrap_mean
from reward_models.batches import PairBatches
from reward_models.calibration import brier, calibration_error, log_loss
from reward_models.model import RewardModel
from reward_models.pairs import LabelledPairs
from reward_models.segments import Segments
from reward_models.train import deltas

Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]  # observations [N, o], actions [N, a] -> [N]


@dataclass(frozen=True)
class Correlation:
    """Agreement of two rankings: Spearman's rho and Pearson's r over `count` items."""

    spearman: float
    pearson: float
    count: int


def correlation(ours: np.ndarray, truth: np.ndarray) -> Correlation:
    """Correlation of learned and true values [N]; nan where either is constant."""
    from scipy.stats import rankdata

    ours, truth = np.asarray(ours, np.float64), np.asarray(truth, np.float64)
    if ours.shape != truth.shape or ours.ndim != 1 or len(ours) < 2:
        raise ValueError(f"correlation: expected two arrays [N] with N >= 2, got {ours.shape} and {truth.shape}")
    return Correlation(_pearson(rankdata(ours), rankdata(truth)), _pearson(ours, truth), len(ours))


def _pearson(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left - left.mean(), right - right.mean()
    scale = np.sqrt((left**2).sum() * (right**2).sum())
    return float((left * right).sum() / scale) if scale > 0 else float("nan")


def judge_accuracy(model: RewardModel, test: LabelledPairs) -> dict[str, Any]:
    """`judge_deltas` of a model, at its temperature."""
    delta, _ = deltas(model, PairBatches(test.data))
    return judge_deltas(delta, test, temperature=float(model.temperature))


def judge_deltas(delta: np.ndarray, test: LabelledPairs, *, temperature: float = 1.0) -> dict[str, Any]:
    """Accuracy with a 95 % bootstrap interval beside the teacher's Bayes rate, and calibration before and after.

    Args:
        delta: [N] predicted score of the first segment minus that of the second.
        temperature: divides them where they are "scaled".

    "regret" is the accuracy lost against the best predictor in expectation, by the teacher's own probabilities: it has
    none of the noise of the sampled labels.
    """
    label = test.data.label
    if delta.shape != label.shape:
        raise ValueError(f"expected {len(label)} differences of scores, got shape {delta.shape}")
    decided = label != 0.5
    right = ((delta > 0) == (label > 0.5))[decided]
    p = test.probability[decided]
    expected = np.where(delta[decided] > 0, p, 1 - p).mean()
    result: dict[str, Any] = {
        "accuracy": bootstrap_mean(right.astype(float), resamples=1000).to_dict(),
        "expected_accuracy": float(expected),
        "bayes_accuracy": test.bayes_accuracy,
        "regret": float(test.bayes_accuracy - expected),
        "pairs": int(decided.sum()),
        "temperature": temperature,
    }
    for name, t in (("raw", 1.0), ("scaled", temperature)):
        probability = 1 / (1 + np.exp(-np.clip(delta / t, -60, 60)))
        result[f"ece_{name}"] = calibration_error(probability, label)
        result[f"brier_{name}"] = brier(probability, label)
        result[f"log_loss_{name}"] = log_loss(delta, label, temperature=t)
    return result


@torch.no_grad()
def segment_scores(model: RewardModel, segments: Segments, *, chunk: int = 512) -> np.ndarray:
    """Sum of the predicted rewards [N] of segments."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(segments), chunk):
        rows = np.arange(start, min(start + chunk, len(segments)))
        tensors = [torch.from_numpy(array).to(device) for array in segments.padded(rows)]
        parts.append(model.predict(*tensors).reward.sum(1).cpu().numpy())
    return np.concatenate(parts)


def episode_scores(model: RewardModel, episodes: Sequence[Episode], *, window: int | None = None) -> np.ndarray:
    """Sum of the predicted rewards [N] of whole episodes; models over segments see windows of `window` steps."""
    from reward_models.relabel import step_rewards

    return np.array([float(step_rewards(model, episode, window=window).sum()) for episode in episodes])


def epic_distance(
    first: Reward,
    second: Reward,
    observations: np.ndarray,
    actions: np.ndarray,
    *,
    rng: np.random.Generator,
    samples: int = 512,
    discount: float = 0.99,
) -> float:
    """EPIC distance in [0, 1] of two rewards r(o, a) over a coverage distribution of steps [N, o], [N, a].

    0 where they differ by shaping, scale and offset only. Canonicalised by samples: next observations are drawn from
    the coverage distribution independently of the step, as in the paper's sample-based form.
    """
    if len(observations) != len(actions) or len(observations) < 2:
        raise ValueError(f"epic_distance: expected steps with actions, got {len(observations)} and {len(actions)}")
    at = rng.integers(len(observations), size=samples)
    after = rng.integers(len(observations), size=samples)
    mixed = rng.integers(len(actions), size=(samples, 16))
    canonical = []
    for reward in (first, second):
        # mean over A of r(s, A), for the states s, s' and the reference S'; r does not look at the next state.
        def mean_over_actions(rows: np.ndarray, reward: Reward = reward) -> np.ndarray:
            obs = np.repeat(observations[rows], mixed.shape[1], axis=0)
            return reward(obs, actions[mixed.reshape(-1)]).reshape(len(rows), -1).mean(1)

        here, there = mean_over_actions(at), mean_over_actions(after)
        value = reward(observations[at], actions[at])
        # C(R)(s, a, s') = R(s, a) + E[g R(s', A) - R(s, A) - g R(S, A)]
        canonical.append(value + discount * there - here - discount * there.mean())
    r = np.clip(_pearson(*canonical), -1, 1)
    return float(np.sqrt((1 - r) / 2))


def step_reward(model: RewardModel) -> Reward:
    """A model as a function of single steps."""

    @torch.no_grad()
    def reward(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        obs, act = (
            torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))[:, None] for x in (observations, actions)
        )
        return model.predict(obs, act).reward[:, 0].numpy()

    return reward


def best_of(learned: np.ndarray, truth: np.ndarray, counts: Sequence[int]) -> list[dict[str, float]]:
    """True value of the best of n by the learned reward, for each n: what optimising harder brings (or costs).

    Exact expectation over all draws of n without replacement (Gao et al. 2023, app. A; Chen et al. 2021): the item of
    rank k is the best of n with probability C(k - 1, n - 1) / C(N, n).

    Args:
        learned, truth: [N] values of the same candidates.
    """
    from scipy.special import gammaln

    learned, truth = np.asarray(learned, np.float64), np.asarray(truth, np.float64)
    total = len(learned)
    order, ideal = np.argsort(learned, kind="stable"), np.sort(truth)
    k = np.arange(1, total + 1, dtype=np.float64)
    curve = []
    for n in counts:
        if not 1 <= n <= total:
            raise ValueError(f"best_of: counts must lie in [1, {total}], got {n}")
        with np.errstate(invalid="ignore"):
            logs = gammaln(k) - gammaln(n) - gammaln(np.maximum(k - n + 1, 1))
        logs -= gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1)
        weights = np.where(k >= n, np.exp(logs), 0.0)
        curve.append(
            {
                "n": int(n),
                "true": float(weights @ truth[order]),
                "learned": float(weights @ learned[order]),
                "ideal": float(weights @ ideal),
            }
        )
    return curve


def over_optimisation(
    evaluate: Callable[[float], tuple[float, float]], strengths: Sequence[float]
) -> list[dict[str, float]]:
    """True and learned return against guidance strength.

    Args:
        evaluate: strength -> (mean true return, mean learned return) of roll-outs steered with it.
    """
    curve = []
    for strength in strengths:
        true, learned = evaluate(float(strength))
        curve.append({"strength": float(strength), "true": float(true), "learned": float(learned)})
    return curve

"""Scripted teachers whose Bayes-optimal accuracy is known.

The model of a teacher is B-Pref's (Lee et al. 2021, "B-Pref: Benchmarking Preference-Based RL", sec. 3): Bradley-Terry
with rationality beta on myopically discounted sums, mistakes, skipped and equal pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from diffdecide.data.episode import Episode

Score = Callable[[Episode], np.ndarray]  # episode of T steps -> what each step is worth, [T]


def goal_seeking(episode: Episode) -> np.ndarray:
    """The task's own reward [T]."""
    return episode.rewards


def cautious(episode: Episode) -> np.ndarray:
    """Minus the cost [T]."""
    return -episode.costs


def smooth(episode: Episode) -> np.ndarray:
    """Minus the squared change of action [T], in shares of the largest action of the episode; 0 at the first step."""
    scale = np.maximum(np.abs(episode.actions).max(0), 1e-6)
    change = np.diff(episode.actions, axis=0, prepend=episode.actions[:1]) / scale
    return -np.square(change).sum(1)


def unhurried(episode: Episode) -> np.ndarray:
    """Minus the squared action [T], in shares of the largest action: smooth and with little effort."""
    scale = np.maximum(np.abs(episode.actions).max(0), 1e-6)
    return 0.5 * smooth(episode) - np.square(episode.actions / scale).sum(1)


SCORES: dict[str, Score] = {
    "return": goal_seeking,
    "cost": cautious,
    "smooth": smooth,
    "unhurried": unhurried,
}


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """How a scripted teacher answers.

    Attributes:
        beta: rationality, 1 / (unit of the score); infinite is always right.
        gamma: weight of earlier steps, gamma^(T - t): 1 weighs all alike, less looks at the end.
        mistake: probability that the answer is turned round.
        skip_below: pairs in which both scores are below this are not answered; None answers all.
        tie_within: pairs whose scores differ by less are called equal (label 0.5).
    """

    beta: float = 1.0
    gamma: float = 1.0
    mistake: float = 0.0
    skip_below: float | None = None
    tie_within: float = 0.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"Teacher.beta must be positive (or infinite), got {self.beta}")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"Teacher.gamma must lie in (0, 1], got {self.gamma}")
        if not 0 <= self.mistake < 0.5:
            raise ValueError(f"Teacher.mistake must lie in [0, 0.5), got {self.mistake}")
        if not self.tie_within >= 0:
            raise ValueError(f"Teacher.tie_within must not be negative, got {self.tie_within}")

    def weigh(self, scores: np.ndarray) -> np.ndarray:
        """Sum of step scores [..., T], discounted towards the beginning: [...]."""
        steps = scores.shape[-1]
        return scores.astype(np.float64) @ self.gamma ** np.arange(steps - 1, -1, -1.0)

    def probability(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Probability [N] of the answer "first" for scores [N] and [N], mistakes included; ties aside."""
        difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
        if math.isinf(self.beta):
            right = 0.5 * (1 + np.sign(difference))
        else:
            right = 0.5 * (1 + np.tanh(0.5 * self.beta * difference))
        return (1 - self.mistake) * right + self.mistake * (1 - right)

    def answer(self, first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> Answers:
        """Sampled labels for pairs with scores `first` [N] and `second` [N]."""
        first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
        if first.shape != second.shape or first.ndim != 1:
            raise ValueError(f"expected two arrays [N] of scores, got {first.shape} and {second.shape}")
        probability = self.probability(first, second)
        label = (rng.uniform(size=len(first)) < probability).astype(np.float32)
        tie = np.abs(first - second) < self.tie_within
        label[tie] = 0.5
        asked = np.ones(len(first), dtype=bool)
        if self.skip_below is not None:
            asked = np.maximum(first, second) >= self.skip_below
        return Answers(label, probability, tie, asked)

    def for_accuracy(self, first: np.ndarray, second: np.ndarray, accuracy: float) -> Teacher:
        """This teacher with the beta at which its Bayes rate on the given pairs is `accuracy` (bisection).

        Raises:
            ValueError: no beta reaches it, because mistakes or ties forbid it.
        """
        if not 0.5 < accuracy < 1:
            raise ValueError(f"accuracy must lie in (0.5, 1), got {accuracy}")
        sure = replace(self, beta=math.inf)
        if bayes_rate(sure.probability(first, second)) < accuracy:
            raise ValueError(f"no beta gives an accuracy of {accuracy} with {self.mistake=} and {self.tie_within=}")
        spread = float(np.std(np.asarray(first) - np.asarray(second))) or 1.0
        low, high = 1e-4 / spread, 1e6 / spread
        for _ in range(80):
            middle = math.sqrt(low * high)
            rate = bayes_rate(replace(self, beta=middle).probability(first, second))
            low, high = (middle, high) if rate < accuracy else (low, middle)
        return replace(self, beta=math.sqrt(low * high))


@dataclass(frozen=True, eq=False)
class Answers:
    """What a teacher said.

    Attributes:
        label: [N] 1, 0 or 0.5.
        probability: [N] of the answer 1 where there is no tie.
        tie: [N] bool.
        asked: [N] bool, False where the teacher skips.
    """

    label: np.ndarray
    probability: np.ndarray
    tie: np.ndarray
    asked: np.ndarray

    @property
    def bayes_accuracy(self) -> float:
        """Expected accuracy of the best predictor on the answered pairs that are no ties."""
        return bayes_rate(self.probability[self.asked & ~self.tie])


def bayes_rate(probability: np.ndarray) -> float:
    """mean max(p, 1 - p): no predictor agrees with the sampled labels more often in expectation."""
    probability = np.asarray(probability, dtype=np.float64)
    if probability.size == 0:
        raise ValueError("bayes_rate: expected at least one pair that is no tie, got none")
    return float(np.maximum(probability, 1 - probability).mean())

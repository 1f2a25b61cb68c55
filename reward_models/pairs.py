"""Preference data sets from episodes: cut segments, pair them, let a teacher answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffdecide.data.episode import Episode
from reward_models.preferences import PreferenceError, Preferences
from reward_models.segments import Segments
from reward_models.teachers import Score, Teacher


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """A data set with what only the teacher knows.

    Attributes:
        data: the comparisons.
        probability: [N] the teacher's probability of preferring the first (ties: 0.5).
        score_1, score_2: [N] the teacher's scores.
        bayes_accuracy: best possible expected accuracy on the comparisons that are no ties.
        beta: the teacher's rationality that was used.
        skipped: pairs that the teacher did not answer; they are not in `data`.
    """

    data: Preferences
    probability: np.ndarray
    score_1: np.ndarray
    score_2: np.ndarray
    bayes_accuracy: float
    beta: float
    skipped: int


def cut(
    episodes: Sequence[Episode], count: int, length: int | tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw `count` segments: episode [N], first step [N] and length [N], uniform over all that fit.

    Args:
        length: steps, or the smallest and largest number of steps.
    """
    low, high = (length, length) if isinstance(length, int) else length
    if not 1 <= low <= high:
        raise ValueError(f"segment length: expected 1 <= low <= high, got {low} and {high}")
    steps = np.array([len(episode) for episode in episodes])
    if len(steps) == 0 or steps.max() < high:
        raise PreferenceError(f"segments of {high} steps do not fit: the longest episode has {steps.max(initial=0)}")
    lengths = rng.integers(low, high + 1, size=count)
    rooms = np.maximum(steps[None, :] - lengths[:, None] + 1, 0).astype(np.float64)
    chance = np.cumsum(rooms / rooms.sum(1, keepdims=True), axis=1)
    which = np.minimum((rng.uniform(size=(count, 1)) >= chance).sum(1), len(steps) - 1)
    starts = np.floor(rng.uniform(size=count) * rooms[np.arange(count), which]).astype(np.int64)
    return which, starts, lengths


def label_episodes(
    episodes: Sequence[Episode],
    *,
    pairs: int,
    score: Score,
    teacher: Teacher,
    rng: np.random.Generator,
    length: int | tuple[int, int] = 32,
    bayes_accuracy: float | None = None,
    names: Sequence[str] | None = None,
    annotator: str = "teacher",
    prompt: str | None = None,
) -> LabelledPairs:
    """Draw pairs of segments and let the teacher answer.

    Args:
        score: what each step is worth to the teacher.
        bayes_accuracy: choose the teacher's beta so that its Bayes rate on these pairs is this; None keeps beta.
        names: of the trajectories; by default their number and seed.

    Raises:
        PreferenceError: segments that do not fit, or a teacher that skips every pair.
    """
    if pairs < 1:
        raise ValueError(f"pairs must be at least 1, got {pairs}")
    names = names or [f"{i}:{e.metadata.get('env_id', '')}:{e.seed}" for i, e in enumerate(episodes)]
    values = [np.asarray(score(episode), dtype=np.float64) for episode in episodes]
    for number, (value, episode) in enumerate(zip(values, episodes, strict=True)):
        if value.shape != (len(episode),) or not np.isfinite(value).all():
            raise PreferenceError(f"score of episode {number}: expected {len(episode)} finite numbers: {value.shape}")
    which_1, start_1, lengths = cut(episodes, pairs, length, rng)
    which_2, start_2, _ = cut(episodes, pairs, length, rng)
    # Both segments of a pair have one length, or the teacher's sums could not be compared.
    steps = np.array([len(episode) for episode in episodes])
    lengths = np.minimum(lengths, steps[which_2])
    start_2 = np.minimum(start_2, steps[which_2] - lengths)
    sides = ((which_1, start_1), (which_2, start_2))
    scores = [
        np.array([teacher.weigh(values[e][s : s + n]) for e, s, n in zip(which, starts, lengths, strict=True)])
        for which, starts in sides
    ]
    if bayes_accuracy is not None:
        teacher = teacher.for_accuracy(scores[0], scores[1], bayes_accuracy)
    answers = teacher.answer(scores[0], scores[1], rng)
    kept = np.flatnonzero(answers.asked)
    if len(kept) == 0:
        raise PreferenceError(f"the teacher skipped all {pairs} pairs: no score reaches {teacher.skip_below=}")
    kept_lengths = lengths[kept]
    parts = [_segments(episodes, which[kept], starts[kept], kept_lengths) for which, starts in sides]
    costs = [
        np.array([episodes[e].costs[s : s + n].sum() for e, s, n in zip(w[kept], t[kept], kept_lengths, strict=True)])
        for w, t in sides
    ]
    data = Preferences(
        parts[0],
        parts[1],
        label=answers.label[kept],
        cost_1=costs[0],
        cost_2=costs[1],
        trajectory_1=np.array([names[e] for e in which_1[kept]], dtype=object),
        trajectory_2=np.array([names[e] for e in which_2[kept]], dtype=object),
        annotator=np.full(len(kept), annotator, dtype=object),
        prompt=None if prompt is None else np.full(len(kept), prompt, dtype=object),
    )
    probability = np.where(answers.tie, 0.5, answers.probability)[kept]
    return LabelledPairs(
        data,
        probability,
        scores[0][kept],
        scores[1][kept],
        answers.bayes_accuracy,
        teacher.beta,
        pairs - len(kept),
    )


def _segments(episodes: Sequence[Episode], which: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Segments:
    rows = list(zip(which, starts, lengths, strict=True))
    return Segments.of(
        [episodes[e].observations[s : s + n] for e, s, n in rows], [episodes[e].actions[s : s + n] for e, s, n in rows]
    )

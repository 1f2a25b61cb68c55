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
    sides, scores = [], []
    lengths: np.ndarray | None = None
    for _ in range(2):
        which, starts, drawn = cut(episodes, pairs, length, rng)
        # Both segments of a pair have one length, or the teacher's sums could not be compared.
        lengths = drawn if lengths is None else lengths
        room = np.array([len(episodes[i]) for i in which]) - lengths
        starts = np.minimum(starts, np.maximum(room, 0))
        lengths = np.minimum(lengths, np.array([len(episodes[i]) for i in which]))
        sides.append((which, starts))
    for which, starts in sides:
        scores.append(
            np.array([teacher.weigh(values[e][s : s + n]) for e, s, n in zip(which, starts, lengths, strict=True)])
        )
    if bayes_accuracy is not None:
        teacher = teacher.for_accuracy(scores[0], scores[1], bayes_accuracy)
    answers = teacher.answer(scores[0], scores[1], rng)
    kept = np.flatnonzero(answers.asked)
    if len(kept) == 0:
        raise PreferenceError(f"the teacher skipped all {pairs} pairs: no score reaches {teacher.skip_below=}")
    assert lengths is not None
    data = Preferences(
        *(_segments(episodes, which[kept], starts[kept], lengths[kept]) for which, starts in sides),
        label=answers.label[kept],
        **{
            f"cost_{side + 1}": np.array(
                [episodes[e].costs[s : s + n].sum() for e, s, n in zip(w[kept], t[kept], lengths[kept], strict=True)]
            )
            for side, (w, t) in enumerate(sides)
        },
        **{f"trajectory_{i + 1}": np.array([names[e] for e in w[kept]], object) for i, (w, _) in enumerate(sides)},
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

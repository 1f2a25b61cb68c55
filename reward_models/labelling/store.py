"""Answers of a person, each on disk before the next question is asked."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffdecide.data.episode import Episode
from reward_models.preferences import PreferenceError, Preferences
from reward_models.segments import Segments

ANSWERS = {"first": 1.0, "second": 0.0, "tie": 0.5, "skip": None}


@dataclass(frozen=True)
class Question:
    """Two segments: episode, first step, and their common length."""

    episode_1: int
    start_1: int
    episode_2: int
    start_2: int
    length: int


@dataclass(frozen=True)
class Answer:
    """What a person said about a question; `answer` is a key of `ANSWERS`."""

    number: int
    question: Question
    answer: str
    annotator: str
    seconds: float


class LabelStore:
    """An append-only file of JSON lines. A line that a crash cut off is dropped when the file is opened again.

    Args:
        path: made where it is missing.
        fingerprint: of the episodes; a file that was made with others is refused.
    """

    def __init__(self, path: str | os.PathLike[str], *, fingerprint: str) -> None:
        self.path = Path(path)
        self.answers: dict[int, Answer] = {}
        header = {"format": "diffdecide-labels-1", "episodes": fingerprint}
        if self.path.exists() and self.path.stat().st_size and not self._cut_off_at_once(header):
            self._load(header)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append(header)

    def _cut_off_at_once(self, header: dict[str, str]) -> bool:
        """A session killed while it wrote its very first line holds no label: the file is begun anew."""
        line = json.dumps(header).encode()
        with self.path.open("rb+") as file:
            content = file.read(len(line) + 1)
            if content and line.startswith(content):
                file.truncate(0)
                return True
        return False

    def _load(self, header: dict[str, str]) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.decode("utf-8").splitlines()
        try:
            known = json.loads(lines[0]) if lines else {}
        except json.JSONDecodeError:
            known = {}
        if known.get("format") != header["format"]:
            raise PreferenceError(f"{self.path}: expected a file of labels, got something else; nothing was changed")
        if known.get("episodes") != header["episodes"]:
            raise PreferenceError(f"{self.path}: these labels were given for other episodes; name another file")
        for number, line in enumerate(lines[1:], 2):
            try:
                value = json.loads(line)
                answer = Answer(**{**value, "question": Question(**value["question"])})
            except (json.JSONDecodeError, TypeError, KeyError) as error:
                raise PreferenceError(f"{self.path}: line {number} is damaged ({error})") from None
            self.answers[answer.number] = answer
        if len(whole) < len(content):
            with self.path.open("rb+") as file:
                file.truncate(len(whole))

    def add(self, answer: Answer) -> None:
        """Write one answer and wait until it is on disk; a second answer to a question replaces the first."""
        if answer.answer not in ANSWERS:
            raise ValueError(f"answer must be one of {', '.join(ANSWERS)}, got {answer.answer!r}")
        question = vars(answer.question)
        self._append({**vars(answer), "question": question})
        self.answers[answer.number] = answer

    def _append(self, value: object) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def preferences(self, episodes: Sequence[Episode]) -> Preferences:
        """The answered questions as a data set; skipped ones are left out.

        Raises:
            PreferenceError: nothing is answered yet.
        """
        given = [answer for _, answer in sorted(self.answers.items()) if ANSWERS[answer.answer] is not None]
        if not given:
            raise PreferenceError(f"{self.path}: expected at least one answered comparison, got none")
        sides, costs, names = [], [], []
        for side in ("1", "2"):
            rows = [
                (getattr(a.question, f"episode_{side}"), getattr(a.question, f"start_{side}"), a.question.length)
                for a in given
            ]
            sides.append(
                Segments.of(
                    [episodes[e].observations[s : s + n] for e, s, n in rows],
                    [episodes[e].actions[s : s + n] for e, s, n in rows],
                )
            )
            costs.append(np.array([episodes[e].costs[s : s + n].sum() for e, s, n in rows]))
            names.append(np.array([f"{e}:{episodes[e].seed}" for e, _, _ in rows], dtype=object))
        return Preferences(
            sides[0],
            sides[1],
            np.array([ANSWERS[a.answer] for a in given], np.float32),
            cost_1=costs[0],
            cost_2=costs[1],
            annotator=np.array([a.annotator for a in given], dtype=object),
            trajectory_1=names[0],
            trajectory_2=names[1],
        )


def questions(episodes: Sequence[Episode], count: int, length: int, rng: np.random.Generator) -> list[Question]:
    """`count` random questions; the same generator state gives the same list, so a session can be taken up again."""
    from reward_models.pairs import cut

    one, start_1, _ = cut(episodes, count, length, rng)
    two, start_2, _ = cut(episodes, count, length, rng)
    table = zip(one, start_1, two, start_2, strict=True)
    return [Question(int(a), int(b), int(c), int(d), length) for a, b, c, d in table]

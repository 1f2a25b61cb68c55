"""Sentences written by hand, beside those that the grammar composes.

A grammar is endless but regular; people are neither. Each line of ``lm_bridge/written/*.jsonl`` is one sentence with
placeholders for colours ({t1}…: targets in the order of the visits, {a1}…: zones never to be entered) and its meaning.
As with the vocabulary, every sixth sentence belongs to the validation side alone.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from lm_bridge.goals import COLOURS
from lm_bridge.grammar import KINDS, Slots
from lm_bridge.vocabulary import COLOUR_SYNONYMS, HELD_EVERY, SPLITS

FILES = ("reach", "sequence", "avoid", "stay", "caution")
REFUSED = "refuse"


@functools.cache
def _lines(name: str) -> tuple[dict[str, Any], ...]:
    file = resources.files("lm_bridge") / "written" / f"{name}.jsonl"
    if not file.is_file():
        return ()
    return tuple(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())


def _side(name: str, split: str) -> tuple[dict[str, Any], ...]:
    lines = _lines(name)
    if split == "all":
        return lines
    return tuple(line for i, line in enumerate(lines) if (i % HELD_EVERY == HELD_EVERY - 1) == (split == "validation"))


@dataclass(frozen=True)
class WrittenSentences:
    """One side of the split.

    Attributes:
        split: "train", "validation" or "all".
        synonyms: probability that a colour is called by another name.
    """

    split: str = "train"
    synonyms: float = 0.05

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"written sentences: split must be one of {', '.join(SPLITS)}, got {self.split!r}")

    def task(self, rng: np.random.Generator) -> tuple[str, Slots]:
        """A sentence with its colours filled in, and what it means; all kinds are equally likely."""
        kind = str(rng.choice(KINDS))
        pool = _of_kind(self.split, kind)
        line = pool[int(rng.integers(len(pool)))]
        colours = [COLOURS[i] for i in rng.permutation(len(COLOURS))]
        targets, avoid = int(line["targets"]), int(line["avoid"])
        slots = Slots(kind, tuple(colours[:targets]), tuple(colours[targets : targets + avoid]), line["caution"])
        names = {f"t{i + 1}": self._name(colour, rng) for i, colour in enumerate(slots.targets)}
        names |= {f"a{i + 1}": self._name(colour, rng) for i, colour in enumerate(slots.avoid)}
        return line["text"].format(**names), slots

    def refused(self, rng: np.random.Generator) -> tuple[str, str] | None:
        """A sentence that must be declined, and why; None where there is none."""
        pool = _side(REFUSED, self.split)
        if not pool:
            return None
        line = pool[int(rng.integers(len(pool)))]
        return line["text"], line["why"]

    def _name(self, colour: str, rng: np.random.Generator) -> str:
        return str(rng.choice(COLOUR_SYNONYMS[colour])) if rng.random() < self.synonyms else colour


@functools.cache
def _of_kind(split: str, kind: str) -> tuple[dict[str, Any], ...]:
    return tuple(line for name in FILES for line in _side(name, split) if line["kind"] == kind)

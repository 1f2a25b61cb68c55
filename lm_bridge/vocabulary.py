"""The words of the training grammar, read from ``lm_bridge/phrases/*.txt``, one phrase a line.

The more ways of saying a thing are there, the better the bridge copes with ways that are not: the language model
brings what words mean, these lists teach it which meanings matter. Lines that occur twice count twice.

A `Vocabulary` sees one side of a split: every sixth phrase of a list belongs to "validation" alone, so that a bridge is
selected on verbs and frames that it was not trained on.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import numpy as np

SPLITS = ("train", "validation", "all")
HELD_EVERY = 6
# A list shorter than this is needed whole by both sides.
SHORTEST_SPLIT_LIST = 18

COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby", "cherry red", "maroon", "vermilion", "blood-red", "reddish"),
    "green": ("emerald", "lime", "jade", "olive green", "mint green", "grass-green", "greenish", "forest green"),
    "blue": ("azure", "navy", "cobalt", "sapphire", "sky-blue", "bluish", "indigo", "cerulean", "ocean blue"),
    "yellow": ("golden", "amber", "lemon", "mustard yellow", "canary yellow", "yellowish", "gold", "sunny yellow"),
}

# Lists that both sides share: what is tested is unseen verbs and frames, not unseen nouns.
SHARED_LISTS = frozenset({"nouns", "noun_phrases", "neutral_clauses"})


@functools.cache
def phrases(name: str) -> tuple[str, ...]:
    """All lines of ``phrases/<name>.txt``; ValueError for an unknown list."""
    file = resources.files("lm_bridge") / "phrases" / f"{name}.txt"
    if not file.is_file():
        raise ValueError(f"vocabulary: there is no phrase list {name!r}")
    return tuple(line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))


@functools.cache
def _side(name: str, split: str) -> tuple[str, ...]:
    lines = phrases(name)
    if split == "all" or name in SHARED_LISTS or len(lines) < SHORTEST_SPLIT_LIST:
        return lines
    unique = list(dict.fromkeys(lines))
    held = {phrase for i, phrase in enumerate(unique) if i % HELD_EVERY == HELD_EVERY - 1}
    return tuple(p for p in lines if (p in held) == (split == "validation"))


@dataclass(frozen=True)
class Vocabulary:
    """One side of the split; `choose` draws a phrase from a list."""

    split: str = "train"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"vocabulary: split must be one of {', '.join(SPLITS)}, got {self.split=}")

    def list(self, name: str) -> tuple[str, ...]:
        return _side(name, self.split)

    def choose(self, name: str, rng: np.random.Generator) -> str:
        lines = self.list(name)
        return lines[int(rng.integers(len(lines)))]

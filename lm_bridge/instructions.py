"""Endless labelled instructions: sentences of the grammar, sentences to be refused, and the noise of real typing.

Every example is a function of (seed, index), so nothing is stored and a run can be resumed or split over processes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from lm_bridge.goals import COLOURS
from lm_bridge.grammar import Grammar, Slots
from lm_bridge.sentences import WrittenSentences
from lm_bridge.vocabulary import COLOUR_SYNONYMS, Vocabulary

# What a sentence is, beside a task that can be done. The order is that of the classifier's outputs.
INTENTS = ("ok", "off_topic", "contradiction", "foreign", "unknown", "loosen", "impossible")
_SYNONYMS = frozenset(word for names in COLOUR_SYNONYMS.values() for name in names for word in name.split())
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_FILLERS = ("um ", "uh, ", "er, ", "well ", "hey ", "please ", "ok ", "so ", "now ", "oh ", "yo ", "- ", "> ")
_ENDINGS = (" please", " ok?", " cheers", ", if you would", ", ok", " :)", " pls", " plz", ", robot", ", buddy", " now")


@dataclass(frozen=True)
class Example:
    """One labelled sentence. `slots` is None where the sentence asks nothing that slots could hold."""

    text: str
    intent: str
    slots: Slots | None


@dataclass(frozen=True)
class InstructionConfig:
    """The mix of sentences.

    Attributes:
        split: the side of the vocabulary: "train", "validation" (unseen verbs and frames) or "all".
        refused: share of sentences that must be declined.
        goal_share: share of sentences about "the goal" of the built-in tasks.
        noise: probability that a sentence gets typos, odd punctuation, casing or fillers.
        rare_verbs, synonyms: see `Grammar`.
        written: share of sentences that were written by hand instead of composed, see `lm_bridge.sentences`.
    """

    split: str = "train"
    refused: float = 0.22
    goal_share: float = 0.03
    noise: float = 0.5
    rare_verbs: float = 0.12
    synonyms: float = 0.1
    written: float = 0.5

    def __post_init__(self) -> None:
        for name in ("refused", "goal_share", "noise", "rare_verbs", "synonyms", "written"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"instructions: {name} must lie in [0, 1], got {getattr(self, name)}")
        Vocabulary(self.split)


@dataclass(frozen=True)
class _Alien(Grammar):
    """A grammar in which one colour is called by something that does not exist."""

    colour: str = ""
    name: str = ""

    def zone(self, colour: str, rng: np.random.Generator) -> str:
        return self.name if colour == self.colour else super().zone(colour, rng)


class Instructions:
    """Draws examples: `example(rng)`, or `at(seed, index)` for one that can be drawn again."""

    def __init__(self, config: InstructionConfig = InstructionConfig()) -> None:
        self.config = config
        self.vocabulary = Vocabulary(config.split)
        self.grammar = Grammar(self.vocabulary, config.rare_verbs, config.synonyms)
        self.sentences = WrittenSentences(config.split)

    def at(self, seed: int, index: int) -> Example:
        return self.example(np.random.default_rng((seed, index)))

    def example(self, rng: np.random.Generator) -> Example:
        clean = self._refused(rng) if rng.random() < self.config.refused else self._task(rng)
        if rng.random() < self.config.noise:
            return Example(noisy(clean.text, rng), clean.intent, clean.slots)
        return clean

    def _task(self, rng: np.random.Generator) -> Example:
        if rng.random() < self.config.written:
            text, slots = self.sentences.task(rng)
            return Example(text, "ok", slots)
        slots = self.grammar.sample_slots(rng)
        if rng.random() < self.config.goal_share:
            slots = Slots("stay" if rng.random() < 0.2 else "reach", ("goal",), (), slots.caution)
        return Example(self.grammar.sentence(slots, rng), "ok", slots)

    def _refused(self, rng: np.random.Generator) -> Example:
        if rng.random() < 0.5 * self.config.written:
            found = self.sentences.refused(rng)
            if found is not None:
                return Example(found[0], found[1], None)
        intent = str(rng.choice(INTENTS[1:], p=(0.17, 0.24, 0.13, 0.19, 0.17, 0.10)))
        words = self.vocabulary
        c, d, e, f = (COLOURS[i] for i in rng.permutation(4))
        names = {"c": c, "d": d, "e": e, "f": f}
        slots = self.grammar.sample_slots(rng)
        if intent == "contradiction":
            return self._contradiction(slots, rng)
        if intent == "unknown":
            noun = words.choose("nouns", rng)
            thing = words.choose("unknown_things", rng).format(n=noun)
            alien = str(rng.choice(slots.targets))
            grammar = _Alien(self.vocabulary, self.config.rare_verbs, self.config.synonyms, alien, thing)
            return Example(grammar.sentence(slots, rng), intent, None)
        if intent == "loosen":
            text = words.choose("loosen", rng)
            if rng.random() < 0.25:
                return Example(text, intent, None)
            core = self.grammar.sentence(slots, rng)
            join = str(rng.choice((" and ", ". ", ", ", ", and ", "; ", " but ")))
            return Example(join.join((core, text) if rng.random() < 0.6 else (text, core)), intent, slots)
        if intent == "off_topic" and rng.random() < 0.15:
            letters = [
                "".join(rng.choice(list(_LETTERS), size=int(rng.integers(1, 9)))) for _ in range(rng.integers(1, 8))
            ]
            return Example(" ".join(letters), intent, None)
        return Example(words.choose(intent, rng).format(**names), intent, None)

    def _contradiction(self, slots: Slots, rng: np.random.Generator) -> Example:
        both = str(rng.choice(slots.targets))
        avoid = (both, *slots.avoid) if rng.random() < 0.5 else (both,)
        wrong = Slots(slots.kind, slots.targets, avoid[: 1 + int(rng.random() < 0.3)], slots.caution)
        return Example(self.grammar.sentence(wrong, rng), "contradiction", wrong)


def noisy(text: str, rng: np.random.Generator) -> str:
    """`text` as somebody in a hurry would type it: typos, casing, punctuation, fillers."""
    if rng.random() < 0.3:
        text = _typos(text, rng)
    if rng.random() < 0.2:
        text = re.sub(r"[,.;:!?'()]", "", text)
    if rng.random() < 0.1:
        text = text.replace(", ", " , ").replace(". ", " . ")
    if rng.random() < 0.15:
        text = str(rng.choice(_FILLERS)) + text
    if rng.random() < 0.12:
        text = text.rstrip(".!?") + str(rng.choice(_ENDINGS))
    if rng.random() < 0.6:
        text = text.rstrip(".!?") + str(rng.choice((".", ".", "!", "...", "?", "!!", " .", ";", ",")))
    if rng.random() < 0.1:
        text = re.sub(r" ", "  ", text)
    draw = rng.random()
    if draw < 0.2:
        return text.upper()
    if draw < 0.6:
        return text[:1].upper() + text[1:]
    return text


def _typos(text: str, rng: np.random.Generator) -> str:
    words = text.split(" ")
    # A misspelt "jade" is no colour any more; the plain colour words survive a typo.
    long = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha() and word not in _SYNONYMS]
    for i in rng.permutation(long)[: int(rng.integers(1, 3))]:
        word = words[i]
        # First letters are rarely wrong, and without them the word may become another.
        at = int(rng.integers(1, len(word)))
        draw = rng.random()
        if draw < 0.3 and at + 1 < len(word):
            word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif draw < 0.55:
            word = word[:at] + word[at + 1 :]
        elif draw < 0.8:
            word = word[:at] + word[at] + word[at:]
        else:
            word = word[:at] + str(rng.choice(list(_LETTERS))) + word[at + 1 :]
        words[i] = word
    return " ".join(words)

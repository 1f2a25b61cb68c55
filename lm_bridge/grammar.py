"""Composes instructions for the zone tasks from the vocabulary, with the task that each one means.

One sentence is a core (where to go, in which order, whether to stay), optionally what never to enter, and how to go
about it. Every part can stand before or after the others, as a word, a clause or a sentence of its own.
"""

# ruff: noqa: SIM905 (short lists of joints read better as one line with bars)
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lm_bridge.goals import COLOURS
from lm_bridge.vocabulary import COLOUR_SYNONYMS, Vocabulary

KINDS = ("reach", "sequence", "avoid", "stay")
# Joints between the parts of a sentence, separated by bars here to keep their blanks visible.
_JOIN_AVOID = ", but | but | and |, and |. |; |, |. please |, and please | - | yet ".split("|")
_JOIN_AVOID_FRAME = "; |. |, |, but | - |. remember: |, as | because |. note: |! | (|: ".split("|")
_JOIN_CLAUSE = ", |. |; | and | but |, but | - |! |, and |. please | (|. also, |: ".split("|")
_LEAD_CLAUSE = ". |, |: |! |; | - | and |, and |, so |... |, please |. now ".split("|")
_LEAD_AVOID = " and |. |, |; |, but | but |. instead, |, and ".split("|")
_LEAD_AVOID_FRAME = ". |, |; |, so |: |, but |! | so | - ".split("|")
_LISTING = " and | or | and | or |, | as well as | nor | and also ".split("|")
_REPAIRS = (
    ". no wait, {}|, no, sorry, {}|. correction: {}|, i mean {}|. sorry, i meant {}|, or rather {}| - no, wait - {}"
    "|. oh no, i meant {}"
).split("|")
# Two nonsense syllables and a preposition make a verb that nobody has seen.
_PREPOSITIONS = (
    "to|to|to|over to|up to|along to|across to|into|onto|at|by|on|in on|towards|off to|your way to|yourself to"
    "|yourself over to|it to|on over to|for|"
).split("|")
_SYLLABLES = (
    "bo fli gra mun zor tek pla wib dre sko lu nar vim quo jas ple trop sim hax yel cru dap fen gli orp mish snu"
    " brak twi zee"
).split()
_OTHERS = (
    "all the other zones|all other zones|every other zone|the other zones|any other zone|all the others"
    "|the rest of the zones|everything else|any zone but that"
).split("|")
GOAL_WORDS = (
    "the goal|the goal|the goal zone|the target|your goal|the finish|the objective|the goal area|your target"
    "|the goal position|the destination|goal"
).split("|")


@dataclass(frozen=True)
class Slots:
    """What a sentence asks: `targets` are colours in order, or ("goal",) for the built-in tasks' goal."""

    kind: str
    targets: tuple[str, ...]
    avoid: tuple[str, ...] = ()
    caution: str = "normal"


@dataclass(frozen=True)
class Grammar:
    """Draws sentences; `rare_verbs` is the share of verbs of going replaced by words that mean nothing.

    Nonsense verbs teach the bridge to read colours, order and negation rather than to recognise known verbs.
    """

    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    rare_verbs: float = 0.12
    synonyms: float = 0.12

    def sample_slots(self, rng: np.random.Generator) -> Slots:
        """A task drawn over all kinds, colours, orders and cautions."""
        kind = str(rng.choice(KINDS, p=(0.22, 0.36, 0.26, 0.16)))
        order = [COLOURS[i] for i in rng.permutation(4)]
        number = {
            "reach": 1,
            "stay": 1,
            "sequence": 2 + int(rng.random() < 0.36),
            "avoid": 1 + int(rng.random() < 0.35),
        }
        targets = tuple(order[: number[kind]])
        if len(targets) == 3 and rng.random() < 0.04:
            targets = (*targets[:2], targets[0])  # there and back again
        avoid: tuple[str, ...] = ()
        most = 4 - len(targets)
        if kind == "avoid" or (kind == "stay" and rng.random() < 0.15):
            number_avoided = min(most, int(rng.choice((1, 2, 3), p=(0.62, 0.32, 0.06))))
            avoid = tuple(order[len(targets) : len(targets) + number_avoided])
        caution = str(rng.choice(("normal", "careful", "rush"), p=(0.36, 0.32, 0.32)))
        return Slots(kind, targets, avoid, caution)

    def sentence(self, slots: Slots, rng: np.random.Generator) -> str:
        """One way of saying `slots`, in plain lower case."""
        how = _Manner(self, slots.caution, rng)
        if slots.kind == "stay":
            core = self._stay(slots.targets[0], how, rng)
        elif len(slots.targets) == 1:
            core = self._reach(slots.targets[0], how, rng, plain=slots.kind == "avoid")
        else:
            core = self._sequence(slots.targets, how, rng)
        if slots.avoid:
            core = self.with_avoid(core, slots.avoid, rng, others=len(slots.avoid) == 4 - len(slots.targets))
        return how.attach(core)

    # -- parts ---------------------------------------------------------------------------------------------------

    def zone(self, colour: str, rng: np.random.Generator) -> str:
        """A noun phrase for the zone of `colour` (or the goal)."""
        if colour == "goal":
            return str(rng.choice(GOAL_WORDS))
        word = str(rng.choice(COLOUR_SYNONYMS[colour])) if rng.random() < self.synonyms else colour
        noun = self.vocabulary.choose("nouns", rng)
        # Plain forms are the common ones in what people write; the list holds the rest.
        plain = str(rng.choice(("{c}", "the {c} {n}"))) if rng.random() < 0.5 else ""
        phrase = (plain or self.vocabulary.choose("noun_phrases", rng)).format(c=word, n=noun)
        return re.sub(r"\ba ([aeiou])", r"an \1", phrase)

    def verb(self, rng: np.random.Generator) -> str:
        """A way of going, with `{}` for the zone."""
        if rng.random() < self.rare_verbs:
            word = "".join(rng.choice(_SYLLABLES, size=int(rng.integers(1, 4))))
            return f"{word} {rng.choice(_PREPOSITIONS)} {{}}".replace("  ", " ")
        return self.vocabulary.choose("go", rng)

    def _command(self, text: str, rng: np.random.Generator, share: float = 0.55) -> str:
        if rng.random() < share:
            return self.vocabulary.choose("command_frames", rng).format(text)
        return text

    def _reach(self, colour: str, how: _Manner, rng: np.random.Generator, plain: bool) -> str:
        zone = self.zone(colour, rng)
        draw = rng.random()
        if draw < 0.2 and not how.in_verb:
            core = self.vocabulary.choose("reach_frames", rng).format(zone)
        elif draw < 0.28 and not how.in_verb:
            core = self.vocabulary.choose("gerund_frames", rng).format(gerund(self.verb(rng)).format(zone))
        else:
            core = self._command(how.verb().format(zone), rng, 0.35 if plain else 0.55)
        if colour != "goal" and rng.random() < 0.015:
            wrong = str(rng.choice([c for c in COLOURS if c != colour]))
            core = core.replace(zone, self.zone(wrong, rng)) + str(rng.choice(_REPAIRS)).format(zone)
        return core

    def _stay(self, colour: str, how: _Manner, rng: np.random.Generator) -> str:
        zone = self.zone(colour, rng)
        draw = rng.random()
        if draw < 0.45:
            comma = "," if rng.random() < 0.3 else ""
            return self._command(
                f"{how.verb().format(zone)}{comma} {self.vocabulary.choose('stay_tails', rng)}", rng, 0.4
            )
        if draw < 0.75 or how.in_verb:
            stay = self.vocabulary.choose("stay", rng).format(zone if rng.random() < 0.7 or not how.in_verb else "it")
            if how.in_verb or rng.random() < 0.25:
                stay = f"{how.verb().format(zone)} and {stay}"
            return self._command(stay, rng)
        return self.vocabulary.choose("stay_frames", rng).format(zone)

    def _sequence(self, targets: Sequence[str], how: _Manner, rng: np.random.Generator) -> str:
        frame = self.vocabulary.choose("pair" if len(targets) == 2 else "triple", rng)
        zones = [self.zone(colour, rng) for colour in targets]
        same = self.verb(rng) if rng.random() < 0.3 else None

        def fill(match: re.Match[str]) -> str:
            # Verbs are drawn where the frame asks for one, so that a manner drawn with a verb is really said.
            form, zone = match[1], zones[int(match[1][-1]) - 1]
            if form.isdigit():
                return zone
            verb = how.verb() if same is None or how.in_verb else same
            return (gerund(verb) if form[0] == "G" else verb).format(zone)

        core = re.sub(r"\{(\w+)\}", fill, frame)
        if frame.startswith("{V") and ". " not in frame:
            core = self._command(core, rng, 0.35)
        return core

    def with_avoid(self, core: str, avoid: Sequence[str], rng: np.random.Generator, *, others: bool = False) -> str:
        """`core` and, before or after it, that the zones `avoid` are never to be entered."""
        colours = [avoid[i] for i in rng.permutation(len(avoid))]
        if others and len(avoid) > 1 and rng.random() < 0.35:
            return self._after(core, str(rng.choice(_OTHERS)), rng)
        if len(colours) > 1 and rng.random() < 0.15:
            for colour in colours:
                core = self._after(core, self.zone(colour, rng), rng)
            return core
        zones = _listing([self.zone(colour, rng) for colour in colours], rng)
        return self._before(core, zones, rng) if rng.random() < 0.3 else self._after(core, zones, rng)

    def _after(self, core: str, zones: str, rng: np.random.Generator) -> str:
        draw = rng.random()
        core = core.rstrip(".!")
        if draw < 0.34 and not core.endswith("?"):
            comma = "," if rng.random() < 0.4 else ""
            return f"{core}{comma} {self.vocabulary.choose('avoid_tails', rng).format(zones)}"
        if draw < 0.72:
            join = " " if core.endswith("?") else str(rng.choice(_JOIN_AVOID))
            return f"{core}{join}{self.vocabulary.choose('avoid', rng).format(zones)}"
        join = " " if core.endswith("?") else str(rng.choice(_JOIN_AVOID_FRAME))
        text = f"{core}{join}{self.vocabulary.choose('avoid_frames', rng).format(zones)}"
        return text + ")" if join == " (" else text

    def _before(self, core: str, zones: str, rng: np.random.Generator) -> str:
        draw = rng.random()
        if draw < 0.5:
            lead = self._command(self.vocabulary.choose("avoid", rng).format(zones), rng, 0.2).rstrip("?")
            return lead + str(rng.choice(_LEAD_AVOID)) + core
        if draw < 0.85:
            lead = self.vocabulary.choose("avoid_frames", rng).format(zones)
            return lead + str(rng.choice(_LEAD_AVOID_FRAME)) + core
        return f"{self.vocabulary.choose('avoid_tails', rng).format(zones)}, {core}"


class _Manner:
    """Where and how a sentence says that one should be careful or hurry."""

    def __init__(self, grammar: Grammar, caution: str, rng: np.random.Generator) -> None:
        self.grammar, self.caution, self.rng = grammar, caution, rng
        draw = rng.random()
        marked = caution != "normal"
        self.in_verb = marked and draw < 0.2
        self.in_adverb = marked and 0.15 <= draw < 0.6
        self.in_clause = marked and draw >= 0.55
        self.pending = self.in_adverb and rng.random() < 0.3
        self.said = not marked

    def verb(self) -> str:
        """A way of going; it carries the manner where that is its place."""
        words, rng = self.grammar.vocabulary, self.rng
        self.said = self.said or self.in_verb or self.pending
        if self.in_verb and rng.random() < 0.7:
            return words.choose(f"go_{self.caution}", rng)
        verb = self.grammar.verb(rng)
        if self.pending:
            self.pending = self.in_adverb = False
            adverb = words.choose(f"{self.caution}_adverbs", rng)
            return f"{adverb} {verb}" if rng.random() < 0.4 and " " not in adverb else f"{verb} {adverb}"
        # A verb that must carry the manner and drew a plain one says it with an adverb instead.
        return f"{verb} {words.choose(f'{self.caution}_adverbs', rng)}" if self.in_verb else verb

    def attach(self, core: str) -> str:
        words, rng = self.grammar.vocabulary, self.rng
        if self.in_adverb or not (self.said or self.in_clause):
            adverb = words.choose(f"{self.caution}_adverbs", rng)
            core = _beside(core, adverb, (" ", ", ", ": "), (" ", ", ", ". "), rng)
        if self.in_clause:
            core = _beside(core, words.choose(f"{self.caution}_clauses", rng), _LEAD_CLAUSE, _JOIN_CLAUSE, rng)
        if rng.random() < 0.12 and self.caution == "normal":
            core = _beside(core, words.choose("neutral_clauses", rng), (", ", ". ", ": "), (", ", ". ", "; "), rng)
        return core


def _beside(core: str, words: str, lead: Sequence[str], tail: Sequence[str], rng: np.random.Generator) -> str:
    if rng.random() < 0.42:
        return f"{words}{rng.choice(lead)}{core}"
    if core.endswith(("?", "!")):
        return f"{core} {words}"
    join = str(rng.choice(tail))
    return f"{core.rstrip('.')}{join}{words}" + (")" if join == " (" else "")


def _listing(zones: Sequence[str], rng: np.random.Generator) -> str:
    if len(zones) == 1:
        return zones[0]
    last = str(rng.choice(_LISTING))
    start = str(rng.choice(("", "", "", "both " if last == " and " and len(zones) == 2 else "")))
    return start + ", ".join(zones[:-1]) + last + zones[-1]


def gerund(phrase: str) -> str:
    """The phrase "go to {}" as "going to {}": the first word takes -ing (adverbs before the verb stay)."""
    words = phrase.split(" ")
    at = next((i for i, word in enumerate(words) if not word.endswith("ly") or word == "fly"), 0)
    verb = words[at]
    if verb.endswith("ie"):
        verb = verb[:-2] + "ying"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")) and len(verb) > 2:
        verb = verb[:-1] + "ing"
    elif re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        verb = verb + verb[-1] + "ing"
    else:
        verb = verb + "ing"
    return " ".join([*words[:at], verb, *words[at + 1 :]])

"""When an instruction is declined, and what is said about it. Declining is the fail-safe of the bridge."""

from __future__ import annotations

from dataclasses import dataclass

from lm_bridge.reading import Reading

MAX_TOKENS = 256

REASONS = {
    "empty": "the instruction is empty",
    "too_long": "the instruction is too long",
    "foreign": "the instruction does not seem to be in English, the only language understood here",
    "off_topic": "the instruction does not say where to go",
    "contradiction": "the instruction contradicts itself",
    "unknown": "the instruction names something that is not there (the zones are red, green, blue and yellow)",
    "loosen": "the instruction asks to loosen the safety limits, which words cannot do",
    "impossible": "the instruction is no task known here: reach a zone, two or three in order, or stay in one",
    "unsure": "the instruction was not understood with confidence",
}


@dataclass(frozen=True)
class Refusal:
    """Why an instruction is declined: `code` is a key of `REASONS`, `reason` a sentence for people."""

    code: str
    reason: str


def refuse_text(text: str) -> Refusal | None:
    """What can be declined without a language model: nothing there, or another script."""
    if not text.strip():
        return Refusal("empty", REASONS["empty"])
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return Refusal("off_topic", f"{REASONS['off_topic']}: it holds no words")
    # English is written in Latin letters; an occasional é or a quoted name does no harm.
    if sum(character < "\u0250" for character in letters) < 0.7 * len(letters):
        return Refusal("foreign", REASONS["foreign"])
    return None


def refuse_length(tokens: int) -> Refusal | None:
    """Declines what has more than `MAX_TOKENS` tokens."""
    if tokens <= MAX_TOKENS:
        return None
    return Refusal("too_long", f"{REASONS['too_long']}: {tokens} tokens, at most {MAX_TOKENS}")


def refuse_reading(reading: Reading, min_confidence: float) -> Refusal | None:
    """Declines what was read as no task, as two tasks that exclude each other, or without enough confidence."""
    if reading.forbidden_targets:
        zones = " and ".join(reading.forbidden_targets)
        return Refusal("contradiction", f"{REASONS['contradiction']}: {zones} is to be visited and never to be entered")
    if reading.intent != "ok":
        return Refusal(reading.intent, f"{REASONS[reading.intent]} (confidence {reading.confidence['intent']:.2f})")
    sure = min(reading.confidence["task"], reading.confidence["intent"])
    if sure < min_confidence:
        return Refusal("unsure", f"{REASONS['unsure']} ({sure:.2f}, at least {min_confidence:.2f} is needed)")
    return None


def heard(reading: Reading, least: float = 0.5) -> dict[str, object]:
    """The slots that were read with a probability of at least `least`, as plain values."""
    slots = reading.slots
    values: dict[str, object] = {
        "kind": slots.kind,
        "targets": list(slots.targets),
        "avoid": list(slots.avoid),
        "caution": slots.caution,
    }
    found = {name: value for name, value in values.items() if reading.confidence[name] >= least}
    if reading.forbidden_targets:
        found["avoid"] = list(reading.forbidden_targets)
    return found

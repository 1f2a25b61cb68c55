"""The training sentences: labels, diversity, the split, and what they must leave to the held-out prompts."""

import functools
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lm_bridge
from lm_bridge.goals import COLOURS
from lm_bridge.grammar import KINDS, Grammar, Slots, gerund
from lm_bridge.instructions import INTENTS, InstructionConfig, Instructions, noisy
from lm_bridge.sentences import WrittenSentences
from lm_bridge.vocabulary import SHARED_LISTS, Vocabulary, phrases
from safety.tasks.spec import TaskSpec

PROMPTS = Path(__file__).parents[2] / "benchmarks" / "prompts"
CLEAN = InstructionConfig(split="all", noise=0.0, rare_verbs=0.0)
EXAMPLES = [Instructions(CLEAN).at(0, i) for i in range(4000)]
COMPOSED = [Instructions(replace(CLEAN, written=0.0)).at(0, i) for i in range(2000)]
WRITTEN = [
    (file.stem, json.loads(line))
    for file in sorted((Path(lm_bridge.__file__).parent / "written").glob("*.jsonl"))
    for line in file.read_text(encoding="utf-8").splitlines()
]

IRREGULAR = {
    "beat": "beaten", "begin": "began begun", "bite": "bit bitten", "bring": "brought", "creep": "crept",
    "feel": "felt", "find": "found", "forbid": "forbade forbidden", "give": "gave given", "hang": "hung", "lead": "led",
    "leave": "left", "lose": "lost", "make": "made", "pay": "paid", "see": "saw seen",
    "show": "shown", "shrink": "shrank shrunk",
    "sit": "sat", "take": "took taken", "tread": "trod trodden", "wind": "wound",
}  # fmt: skip


def _inflections(verb: str) -> set[str]:
    forms = {verb, verb + "s", verb + "es", verb + "d", verb + "ed", verb + "ing", verb + verb[-1] + "ing"}
    forms |= {verb + verb[-1] + "ed", *IRREGULAR.get(verb, "").split()}
    if verb.endswith("e"):
        forms.add(verb[:-1] + "ing")
    if verb.endswith("y"):
        forms |= {verb[:-1] + "ies", verb[:-1] + "ied"}
    return forms


def _frame(text: str) -> str:
    """A sentence with COLOUR for every zone, whatever noun it uses, and without the closing punctuation."""
    nouns = "|".join(sorted({re.escape(noun) for noun in phrases("nouns")}, key=len, reverse=True))
    text = re.sub(r"\b(red|green|blue|yellow|COLOUR)\b", "COLOUR", text.lower().replace("colour", "COLOUR"))
    return re.sub(rf"\b(?:the |a |that )?COLOUR(?: (?:{nouns}|one))?\b", "COLOUR", text).rstrip(".!? ")


def test_labels_make_valid_tasks() -> None:
    kinds: Counter[str] = Counter()
    for example in EXAMPLES:
        if example.intent == "ok" and example.slots and example.slots.targets != ("goal",):
            kinds[example.slots.kind] += 1
            TaskSpec(example.slots.kind, example.slots.targets, example.slots.avoid, example.slots.caution)
    for example in COMPOSED:  # contradictions written by hand come without slots, these have them
        if example.intent == "contradiction":
            assert example.slots is not None
            assert set(example.slots.targets) & set(example.slots.avoid)
    assert set(kinds) == set(KINDS)
    assert {example.intent for example in EXAMPLES} == set(INTENTS)


def test_sentences_name_every_zone_of_their_task() -> None:
    grammar = Grammar(Vocabulary("all"), synonyms=0.0)
    rng = np.random.default_rng(1)
    for _ in range(500):
        slots = grammar.sample_slots(rng)
        text = grammar.sentence(slots, rng)
        others = re.search(r"other|rest of the|everything else|any zone", text)
        named = {colour for colour in COLOURS if re.search(rf"\b{colour}", text)}
        assert set(slots.targets) <= named, text
        assert others or set(slots.avoid) <= named, text


def test_sentences_hardly_repeat_and_are_reproducible() -> None:
    texts = [example.text for example in COMPOSED if example.intent == "ok"]
    assert len(set(texts)) > 0.98 * len(texts)
    lines = [re.sub(r"[^a-z0-9{}]+", " ", line["text"].lower()).strip() for _, line in WRITTEN]
    assert len(set(lines)) == len(lines) > 3000
    assert Instructions(CLEAN).at(3, 7) == Instructions(CLEAN).at(3, 7)
    assert Instructions(CLEAN).at(3, 7) != Instructions(CLEAN).at(4, 7)


@pytest.mark.parametrize("name", ["go", "avoid", "pair", "stay", "rush_clauses", "off_topic"])
def test_split_sides_share_no_phrase(name: str) -> None:
    train, validation = set(Vocabulary("train").list(name)), set(Vocabulary("validation").list(name))
    assert name not in SHARED_LISTS
    assert not train & validation
    assert train | validation == set(phrases(name))
    assert len(validation) >= 3


@functools.cache
def _reserved_verbs() -> frozenset[str]:
    verbs = [line.strip() for line in (PROMPTS / "reserved_verbs.txt").read_text().splitlines()]
    return frozenset(form for verb in verbs if verb and " " not in verb for form in _inflections(verb))


@functools.cache
def _reserved_sentences() -> tuple[frozenset[str], frozenset[str]]:
    """Frames and prompts of the held-out set."""
    frames = (PROMPTS / "reserved_frames.txt").read_text().splitlines()
    prompts = (PROMPTS / "held_out.jsonl").read_text().splitlines()
    return (
        frozenset(_frame(line.strip()) for line in frames if line.strip()),
        frozenset(json.loads(line)["prompt"].lower() for line in prompts),
    )


def _assert_unreserved(text: str, *, verbs: bool) -> None:
    frames, prompts = _reserved_sentences()
    found = set(re.findall(r"[a-z']+", text.lower())) & _reserved_verbs() if verbs else set()
    assert not found, (found, text)
    assert _frame(text) not in frames, text
    assert text.lower() not in prompts, text


def test_no_reserved_verb_in_any_phrase() -> None:
    lists = [file.stem for file in (Path(lm_bridge.__file__).parent / "phrases").glob("*.txt")]
    assert len(lists) > 20
    for phrase in (phrase for name in lists for phrase in phrases(name)):
        assert not set(re.findall(r"[a-z']+", phrase.lower())) & _reserved_verbs(), phrase


def test_nothing_reserved_in_examples() -> None:
    for example in EXAMPLES:
        _assert_unreserved(example.text, verbs=example.intent in ("ok", "contradiction"))


def test_nothing_reserved_in_any_written_line() -> None:
    """Every line, not a sample: with each placeholder as a colour, as the frames have them."""
    for name, line in WRITTEN:
        if name == "refuse":
            assert line["why"] in INTENTS[1:], line
            _assert_unreserved(line["text"], verbs=line["why"] == "contradiction")
            continue
        holes = sorted(re.findall(r"{(\w+)}", line["text"]))
        assert set(holes) == {f"t{i + 1}" for i in range(line["targets"])} | {f"a{i + 1}" for i in range(line["avoid"])}
        _assert_unreserved(re.sub(r"{\w+}", "red", line["text"]), verbs=True)


def test_noise_keeps_the_words_mostly() -> None:
    rng = np.random.default_rng(0)
    texts = [noisy("please go to the red zone, then visit the blue one", rng) for _ in range(200)]
    assert len(set(texts)) > 60
    assert sum("red" in text.lower() for text in texts) > 180


def test_gerunds() -> None:
    base = ("go to {}", "stop at {}", "visit {}", "drive to {}", "quickly run to {}", "be in {}")
    inflected = [
        "going to {}",
        "stopping at {}",
        "visiting {}",
        "driving to {}",
        "quickly running to {}",
        "being in {}",
    ]
    assert [gerund(phrase) for phrase in base] == inflected


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="split"):
        InstructionConfig(split="test")
    with pytest.raises(ValueError, match="noise"):
        InstructionConfig(noise=2.0)
    with pytest.raises(ValueError, match="phrase list"):
        phrases("no_such_list")


def test_slots_of_a_fixed_task_are_said_in_many_ways() -> None:
    grammar = Grammar(Vocabulary("train"))
    rng = np.random.default_rng(2)
    texts = {grammar.sentence(Slots("sequence", ("red", "blue")), rng) for _ in range(300)}
    assert len(texts) > 290


@pytest.mark.parametrize("split", ["train", "validation"])
def test_written_sentences_mean_valid_tasks(split: str) -> None:
    written = WrittenSentences(split)
    rng = np.random.default_rng(5)
    kinds = set()
    for _ in range(400):
        text, slots = written.task(rng)
        kinds.add(slots.kind)
        TaskSpec(slots.kind, slots.targets, slots.avoid, slots.caution)
        assert "{" not in text
    assert kinds == set(KINDS)


def test_written_sentences_of_the_two_sides_differ() -> None:
    rng = np.random.default_rng(6)
    plain = [WrittenSentences(split, synonyms=0.0) for split in ("train", "validation")]
    mask = re.compile("|".join(COLOURS))
    train, validation = ({mask.sub("_", side.task(rng)[0]) for _ in range(1500)} for side in plain)
    assert not train & validation

"""How well a bridge reads sentences whose verbs and frames it was not trained on, and how sure it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from lm_bridge.instructions import Example, InstructionConfig, Instructions
from lm_bridge.reading import SlotLogits, read

_TEMPERATURES = np.geomspace(0.5, 4.0, 25)


def validation_examples(count: int, config: InstructionConfig, *, seed: int = 10_000) -> list[Example]:
    """Sentences of the validation side: its verbs and frames are in no training sentence."""
    settings = InstructionConfig(**{**asdict(config), "split": "validation", "rare_verbs": 0.0})
    source = Instructions(settings)
    return [source.at(seed, index) for index in range(count)]


def score(
    examples: Sequence[Example],
    logits: Sequence[SlotLogits],
    *,
    min_confidence: float = 0.5,
    temperature: float = 1.0,
) -> dict[str, float]:
    """Shares of sentences read right: by slot, whole tasks ("full"), and how well refusals are told apart.

    "full" counts every slot including the caution, "task" leaves the caution out. "declined_ok" is the share of good
    sentences that would be refused, "accepted_bad" that of bad ones that would be acted on, "acted_wrongly" that of
    good ones that would be acted on as another task.
    """
    hits: Counter[str] = Counter()
    total: Counter[str] = Counter()

    def count(name: str, hit: bool) -> None:
        hits[name] += hit
        total[name] += 1

    for example, row in zip(examples, logits, strict=True):
        reading = read(row, temperature)
        sure = min(reading.confidence["task"], reading.confidence["intent"]) >= min_confidence
        acted_on = reading.intent == "ok" and not reading.forbidden_targets and sure
        count("intent", reading.intent == example.intent)
        if example.intent != "ok" or example.slots is None:
            count("accepted_bad", acted_on)
            continue
        want, got = example.slots, reading.slots
        count("declined_ok", not acted_on)
        count("kind", got.kind == want.kind)
        count("targets", got.targets == want.targets)
        count("avoid", set(got.avoid) == set(want.avoid))
        count("caution", got.caution == want.caution)
        task = _same_task(example, got.kind, got.targets, got.avoid)
        count("task", task)
        count("full", task and got.caution == want.caution)
        count("acted_wrongly", acted_on and not task)
    return {name: hits[name] / total[name] for name in total}


def calibrate(examples: Sequence[Example], logits: Sequence[SlotLogits]) -> float:
    """The temperature under which the confidence in the task is most likely, given how often it was right.

    Guo et al. 2017 (https://arxiv.org/abs/1706.04599), on the binary event that the whole task was read right.
    """
    good = [(e, row) for e, row in zip(examples, logits, strict=True) if e.intent == "ok" and e.slots is not None]
    if not good:
        return 1.0
    losses = []
    for temperature in _TEMPERATURES:
        total = 0.0
        for example, row in good:
            reading = read(row, float(temperature))
            right = _same_task(example, reading.slots.kind, reading.slots.targets, reading.slots.avoid)
            sure = float(np.clip(reading.confidence["task"], 1e-6, 1 - 1e-6))
            total -= np.log(sure if right else 1.0 - sure)
        losses.append(total)
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _same_task(example: Example, kind: str, targets: Sequence[str], avoid: Sequence[str]) -> bool:
    want = example.slots
    return want is not None and (kind, tuple(targets), set(avoid)) == (want.kind, want.targets, set(want.avoid))

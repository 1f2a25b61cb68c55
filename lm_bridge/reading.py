"""Slot probabilities to the most probable task that can be meant, with how sure that is."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from lm_bridge.goals import COLOURS, TARGETS
from lm_bridge.grammar import KINDS, Slots
from lm_bridge.instructions import INTENTS
from safety.tasks.spec import CAUTIONS

_NONE = 0  # target class of "no target here"


@dataclass(frozen=True)
class SlotLogits:
    """The logits of one sentence, numpy: `kind` [4], `targets` [3, 6], `avoid` [4], `caution` [3], `intent` [7]."""

    kind: np.ndarray
    targets: np.ndarray
    avoid: np.ndarray
    caution: np.ndarray
    intent: np.ndarray


@dataclass(frozen=True)
class Reading:
    """What a sentence was read as.

    Attributes:
        slots: the most probable consistent task.
        confidence: probability of each slot's value ("kind", "targets", "avoid", "caution", "intent") and of the task
            as a whole ("task": kind, targets and avoid together).
        intent: most probable of `INTENTS`.
        forbidden_targets: zones that the slots, each on its own, take both for targets and for forbidden.
    """

    slots: Slots
    confidence: dict[str, float]
    intent: str
    forbidden_targets: tuple[str, ...]


@functools.lru_cache(maxsize=1)
def _candidates() -> tuple[list[Slots], np.ndarray, np.ndarray, np.ndarray]:
    """Every consistent task without its caution: slots, kind index [N], target classes [N, 3], avoid [N, 4]."""
    tasks: list[Slots] = []
    subsets = [s for n in range(4) for s in itertools.combinations(COLOURS, n)]
    orders = [o for n in (1, 2, 3) for o in itertools.product(COLOURS, repeat=n)]
    for order in orders:
        if any(a == b for a, b in itertools.pairwise(order)):
            continue
        for avoid in subsets:
            if set(avoid) & set(order):
                continue
            if len(order) == 1:
                tasks.append(Slots("stay", order, avoid))
            if avoid:
                tasks.append(Slots("avoid", order, avoid))
            else:
                tasks.append(Slots("reach" if len(order) == 1 else "sequence", order))
    tasks += [Slots("reach", ("goal",)), Slots("stay", ("goal",))]
    kinds = np.array([KINDS.index(t.kind) for t in tasks])
    targets = np.array([[*(1 + TARGETS.index(x) for x in t.targets), _NONE, _NONE][:3] for t in tasks])
    avoid_sets = np.array([[colour in t.avoid for colour in COLOURS] for t in tasks])
    return tasks, kinds, targets, avoid_sets


def read(logits: SlotLogits, temperature: float = 1.0) -> Reading:
    """The most probable consistent task under the slots' probabilities at `temperature` (> 0)."""
    if not temperature > 0:
        raise ValueError(f"reading: temperature must be positive, got {temperature=}")
    kind = _log_softmax(logits.kind / temperature)
    targets = _log_softmax(logits.targets / temperature)
    avoid = logits.avoid / temperature
    yes, no = -np.logaddexp(0.0, -avoid), -np.logaddexp(0.0, avoid)
    caution = np.exp(_log_softmax(logits.caution / temperature))
    intent = np.exp(_log_softmax(logits.intent / temperature))

    tasks, kinds, classes, avoided = _candidates()
    order_score = targets[np.arange(3), classes].sum(1)
    avoid_score = np.where(avoided, yes, no).sum(1)
    score = kind[kinds] + order_score + avoid_score
    best = int(np.argmax(score))
    slots = tasks[best]
    manner = CAUTIONS[int(np.argmax(caution))]
    likely = {TARGETS[c - 1] for c in targets.argmax(-1) if c != _NONE}
    both = tuple(colour for colour, logit in zip(COLOURS, avoid, strict=True) if logit > 0 and colour in likely)
    confidence = {
        "kind": float(np.exp(kind[kinds[best]])),
        "targets": float(np.exp(order_score[best])),
        "avoid": float(np.exp(avoid_score[best])),
        "caution": float(caution.max()),
        "intent": float(intent.max()),
        "task": float(np.exp(score[best])),
    }
    final = Slots(slots.kind, slots.targets, slots.avoid, manner)
    return Reading(final, confidence, INTENTS[int(np.argmax(intent))], both)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

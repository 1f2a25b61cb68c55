"""The model card that lies beside a trained bridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIGURES = {
    "full": "whole task and caution right",
    "task": "whole task right (kind, targets in order, zones to avoid)",
    "kind": "kind right",
    "targets": "targets right, in order",
    "avoid": "zones to avoid right",
    "caution": "caution right",
    "intent": "told what is a task and what is to be declined, and why",
    "declined_ok": "good instructions declined",
    "accepted_bad": "instructions to be declined, acted on",
    "acted_wrongly": "good instructions acted on as another task",
}


def model_card(*, training: Mapping[str, Any], figures: Mapping[str, float], sentences: int, minutes: float) -> str:
    """Markdown: what it is, how it was made, how well it does, what it does not do."""
    rows = "\n".join(f"| {text} | {100 * figures[name]:.1f} % |" for name, text in _FIGURES.items() if name in figures)
    steps, batch, seed = training["steps"], training["batch_size"], training["seed"]
    return f"""# Language bridge

Reads one English instruction and gives the goal embedding of the zone tasks, the caution, and how sure it is.
all-MiniLM-L6-v2 (Apache-2.0, frozen, not in this folder) with a LoRA adapter and slot heads, both in
`bridge.safetensors` (half precision).

- Data: {steps * batch} sentences drawn from the grammar of `lm_bridge` and from its sentences written by hand, training
  side of both; none of the held-out prompts, and none of their verbs or frames.
- Command: `diffdecide train bridge --steps {steps} --batch-size {batch} --seed {seed}`
- Training took {minutes:.0f} minutes (wall clock, one CPU core).

## Figures
On {sentences} generated sentences whose verbs, frames and connectives occur in no training sentence, with typos and odd
punctuation in half of them:

| | |
|---|---|
{rows}

## Limits
English only, four zones, at most three targets. Confidence was calibrated on generated sentences: on what people write
it is a guide, not a guarantee. Caution can only add to the operator's margins, whatever the sentence says.
"""

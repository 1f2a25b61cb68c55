"""Trains the bridge: sentences as tensors, the training configuration, validation on unseen verbs and frames."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffdecide.files import write_json, write_text
from lm_bridge.bridge import Bridge
from lm_bridge.card import model_card
from lm_bridge.encoder import POSITIONS, EncoderConfig
from lm_bridge.goals import COLOURS, GOAL_DIM, TARGETS, GoalSpace
from lm_bridge.grammar import KINDS
from lm_bridge.instructions import INTENTS, Example, InstructionConfig, Instructions
from lm_bridge.validation import calibrate, score, validation_examples
from safety.tasks.spec import CAUTIONS

if TYPE_CHECKING:
    from diffdecide.train import FitResult

# Sentences of the grammar are shorter; what is longer is cut in training only.
MAX_TRAIN_TOKENS = 96


@dataclass(frozen=True)
class TrainBridgeConfig:
    """Settings of `train_bridge`.

    Attributes:
        steps, batch_size, learning_rate, warmup_steps, ema_decay, seed: as in `diffdecide.train.TrainConfig`.
        eval_every: steps between validations on `eval_sentences` sentences of the validation side (0: at the end).
        checkpoint_every: steps between checkpoints to resume from.
        mixed_precision: "bf16" halves the time on CPUs that know it.
        min_confidence: a task less probable than this is declined.
        encoder, instructions: see there.
    """

    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.997
    seed: int = 0
    eval_every: int = 1000
    eval_sentences: int = 1000
    checkpoint_every: int = 500
    min_confidence: float = 0.5
    device: str = "auto"
    mixed_precision: str = "bf16"
    progress: bool = True
    overwrite: bool = False
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    instructions: InstructionConfig = field(default_factory=InstructionConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_sentences"):
            if getattr(self, name) < 1:
                raise ValueError(f"train bridge: {name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.min_confidence < 1.0:
            raise ValueError(f"train bridge: min_confidence must lie in [0, 1), got {self.min_confidence=}")


def collate(examples: Sequence[Example], tokenizer: Any, space: GoalSpace) -> dict[str, Tensor]:
    """Sentences as a batch.

    `input_ids`, `attention_mask` [B, L]; `kind` [B]; `targets` [B, 3] (0 none, then `TARGETS`); `avoid` [B, 4] float;
    `caution`, `intent` [B]; `known` [B] (slots are labelled); `rows` [B, 3, 32], `row_mask` [B, 3].
    """
    size = len(examples)
    labels: dict[str, np.ndarray] = {
        "kind": np.zeros(size, np.int64),
        "targets": np.zeros((size, POSITIONS), np.int64),
        "avoid": np.zeros((size, len(COLOURS)), np.float32),
        "caution": np.zeros(size, np.int64),
        "intent": np.array([INTENTS.index(example.intent) for example in examples]),
        "known": np.array([example.slots is not None for example in examples]),
        "rows": np.zeros((size, POSITIONS, GOAL_DIM), np.float32),
        "row_mask": np.zeros((size, POSITIONS), bool),
    }
    for i, example in enumerate(examples):
        if example.slots is None:
            continue
        slots = example.slots
        labels["kind"][i] = KINDS.index(slots.kind)
        labels["caution"][i] = CAUTIONS.index(slots.caution)
        labels["avoid"][i] = [colour in slots.avoid for colour in COLOURS]
        for place, target in enumerate(slots.targets):
            labels["targets"][i, place] = 1 + TARGETS.index(target)
            mode = "stay" if slots.kind == "stay" else "visit"
            labels["rows"][i, place] = space.row(target, mode, slots.avoid, slots.caution)
            # A task that contradicts itself has no goal to land on.
            labels["row_mask"][i, place] = example.intent != "contradiction"
    tokens = tokenizer(
        [example.text for example in examples],
        padding=True,
        truncation=True,
        max_length=MAX_TRAIN_TOKENS,
        return_tensors="pt",
    )
    batch = {name: torch.from_numpy(np.asarray(label)) for name, label in labels.items()}
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], **batch}


class InstructionDataset:
    """`size` sentences by index, made when asked for; batches come tokenised and padded together."""

    def __init__(
        self,
        size: int,
        tokenizer: Any,
        space: GoalSpace,
        config: InstructionConfig | None = None,
        *,
        seed: int = 0,
    ) -> None:
        if size < 1:
            raise ValueError(f"instruction data set: size must be at least 1, got {size}")
        self.size, self.tokenizer, self.space, self.seed = size, tokenizer, space, seed
        self.source = Instructions(config or InstructionConfig())

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return collate([self.source.at(self.seed, int(i)) for i in indices], self.tokenizer, self.space)


def train_bridge(
    config: TrainBridgeConfig, output_dir: str | os.PathLike[str], *, resume: bool = False
) -> tuple[FitResult, Mapping[str, float]]:
    """Train from the frozen language model and save a bridge that `Bridge.from_pretrained(output_dir)` loads.

    Returns the trainer's result and the figures on the validation side of the vocabulary (see `validation.score`).
    """
    from diffdecide.train import TrainConfig, fit

    bridge = Bridge.untrained(
        config.encoder, seed=config.seed, min_confidence=config.min_confidence, training=asdict(config)
    )
    data = InstructionDataset(
        config.steps * config.batch_size, bridge.tokenizer, bridge.space, config.instructions, seed=config.seed
    )
    held_out = validation_examples(config.eval_sentences, config.instructions)
    texts = [example.text for example in held_out]

    def validate(model: torch.nn.Module, step: int) -> Mapping[str, float]:
        return score(held_out, bridge.predict(texts), min_confidence=config.min_confidence)

    settings = TrainConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        ema_decay=config.ema_decay,
        seed=config.seed,
        device=config.device,
        mixed_precision=config.mixed_precision,
        eval_every=config.eval_every,
        checkpoint_every=config.checkpoint_every,
        progress=config.progress,
        overwrite=config.overwrite,
    )
    result = fit(bridge, data, settings, output_dir=output_dir, resume=resume, eval_fn=validate)
    figures = finish(bridge, held_out, output_dir, minutes=result.seconds / 60.0)
    return result, figures


def finish(
    bridge: Bridge, held_out: Sequence[Example], output_dir: str | os.PathLike[str], *, minutes: float
) -> dict[str, float]:
    """Calibrate a trained bridge on `held_out`, save it with its model card, and give its figures."""
    folder = Path(output_dir)
    bridge.round_to_half()  # what is measured is what is saved
    logits = bridge.predict([example.text for example in held_out])
    bridge.temperature = calibrate(held_out, logits)
    figures = score(held_out, logits, min_confidence=bridge.min_confidence, temperature=bridge.temperature)
    bridge.save_pretrained(folder)
    card = model_card(training=bridge.training_record, figures=figures, sentences=len(held_out), minutes=minutes)
    write_text(folder / "README.md", card)
    write_json(folder / "figures.json", {"sentences": len(held_out), "minutes": minutes, **figures})
    return figures

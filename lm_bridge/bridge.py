"""The bridge from a sentence to a goal: what planners and agents call."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffdecide.files import read_json, write_atomic, write_json
from diffdecide.nets.language_backbone import LanguageBackbone, load_backbone
from lm_bridge.encoder import BridgeEncoder, EncoderConfig
from lm_bridge.goals import GoalSpace
from lm_bridge.reading import SlotLogits, read
from lm_bridge.refusal import MAX_TOKENS, Refusal, heard, refuse_length, refuse_reading, refuse_text
from safety.tasks.spec import TaskSpec

FORMAT = "lm-bridge-1"
_WEIGHTS, _CONFIG = "bridge.safetensors", "config.json"


class BridgeError(ValueError):
    """A saved bridge that cannot be loaded; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Understanding:
    """What the bridge made of a sentence.

    Attributes:
        text: the sentence.
        spec: the task, None if declined or if the goal is the built-in tasks' goal.
        embedding: float32 [S, 32], one row per sub-goal; None if declined.
        caution: "careful", "normal" or "rush". "rush" is the operator's margin itself: no word goes below it.
        confidence: probability of each slot's value, "task" for kind, targets and avoid together, "intent" for its
            being a task at all. Empty where no model was asked.
        refused: declined; `code` and `reason` say why.
        heard: the slots that were understood, whether or not the sentence was declined.
    """

    text: str
    spec: TaskSpec | None
    embedding: np.ndarray | None
    caution: str
    confidence: Mapping[str, float]
    refused: bool
    reason: str
    code: str
    heard: Mapping[str, object]

    @property
    def is_goal(self) -> bool:
        """The sentence means the goal of the built-in tasks, not a zone."""
        return not self.refused and self.spec is None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the embedding."""
        return {
            "text": self.text,
            "spec": None if self.spec is None else self.spec.to_dict(),
            "caution": self.caution,
            "confidence": {name: round(value, 4) for name, value in self.confidence.items()},
            "refused": self.refused,
            "reason": self.reason,
            "code": self.code,
            "heard": dict(self.heard),
        }


class Bridge(nn.Module):
    """Language model, adapter, heads, tokenizer and goal space; `understand` is what it is for.

    It owns `loss` and `save_pretrained`, so `diffdecide.train.fit` trains it.
    """

    def __init__(
        self,
        backbone: LanguageBackbone,
        encoder: EncoderConfig,
        space: GoalSpace,
        *,
        min_confidence: float = 0.5,
        temperature: float = 1.0,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= min_confidence < 1.0:
            raise ValueError(f"bridge: min_confidence must lie in [0, 1), got {min_confidence=}")
        if not temperature > 0.0:
            raise ValueError(f"bridge: temperature must be positive, got {temperature=}")
        self.model = BridgeEncoder(backbone, encoder, space)
        self.tokenizer = backbone.tokenizer
        self.space = space
        self.min_confidence, self.temperature = min_confidence, temperature
        self.training_record = dict(training or {})

    @classmethod
    def untrained(
        cls,
        encoder: EncoderConfig | None = None,
        *,
        seed: int = 0,
        min_confidence: float = 0.5,
        training: Mapping[str, Any] | None = None,
    ) -> Bridge:
        """A bridge with fresh adapter and heads. The global random state is left as it was."""
        encoder = encoder or EncoderConfig()
        backbone = load_backbone(encoder.backbone)
        # peft and torch draw first weights from the global state only.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bridge = cls(backbone, encoder, GoalSpace(), min_confidence=min_confidence, training=training)
        return bridge.eval()

    @property
    def fingerprint(self) -> str:
        """Of the goal space; a planner must carry the same."""
        return self.space.fingerprint

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """See `BridgeEncoder.loss`."""
        return self.model.loss(batch, generator)

    def understand(self, text: str) -> Understanding:
        """Read one sentence. A sentence that is not understood is declined, never guessed; only a wrong type raises."""
        if not isinstance(text, str):
            raise ValueError(f"instruction: expected a string, got {type(text).__name__}")
        refusal = refuse_text(text) or refuse_length(self._count_tokens(text))
        if refusal is not None:
            return _declined(text, refusal)
        (logits,), embedding = self._forward([text])
        reading = read(logits, self.temperature)
        refusal = refuse_reading(reading, self.min_confidence)
        if refusal is not None:
            # Where the sentence is no instruction in English, slots were read into it, not from it.
            words = {} if refusal.code in ("foreign", "off_topic") else heard(reading)
            return _declined(text, refusal, reading.confidence, words)
        slots = reading.slots
        goal = slots.targets == ("goal",)
        spec = None if goal else TaskSpec(slots.kind, slots.targets, slots.avoid, slots.caution)
        rows = embedding[0, : len(slots.targets)]
        return Understanding(
            text, spec, rows, slots.caution, reading.confidence, False, "", "", heard(reading, least=0.0)
        )

    def predict(self, texts: Sequence[str], *, batch_size: int = 64) -> list[SlotLogits]:
        """Slot logits of every sentence, in batches."""
        found: list[SlotLogits] = []
        for start in range(0, len(texts), batch_size):
            found += self._forward(list(texts[start : start + batch_size]))[0]
        return found

    def _count_tokens(self, text: str) -> int:
        # Far too long texts are not tokenised: a token has at most a few dozen characters, and most have several.
        if len(text) > 64 * MAX_TOKENS:
            return len(text) // 64 + 1
        return len(self.tokenizer(text, verbose=False)["input_ids"])

    @torch.no_grad()
    def _forward(self, texts: list[str]) -> tuple[list[SlotLogits], np.ndarray]:
        device = next(self.parameters()).device
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        out = self.model(tokens["input_ids"].to(device), tokens["attention_mask"].to(device))
        arrays = [getattr(out, name).cpu().numpy() for name in ("kind", "targets", "avoid", "caution", "intent")]
        logits = [SlotLogits(*(array[i] for array in arrays)) for i in range(len(texts))]
        return logits, out.embedding.float().cpu().numpy()

    @torch.no_grad()
    def round_to_half(self) -> None:
        """Round the trained weights to half precision, in which they are saved, so that saving changes nothing."""
        for tensor in self.model.trained_state().values():
            tensor.copy_(tensor.half())

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Adapter and heads into one half-precision safetensors file, so that neither can be lost without the other."""
        from safetensors.torch import save_file

        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        # Contiguous copies of their own: safetensors refuses shared storage.
        state = {n: t.to("cpu", torch.float16).contiguous().clone() for n, t in self.model.trained_state().items()}
        # One entry only: safetensors writes several in an order that changes from file to file.
        header = {"format": f"{FORMAT} {self.fingerprint}"}
        write_atomic(folder / _WEIGHTS, lambda path: save_file(state, path, metadata=header))
        config = {
            "format": FORMAT,
            "encoder": asdict(self.model.config),
            "goal_space": json.loads(self.space.to_json()),
            "goal_space_fingerprint": self.fingerprint,
            "min_confidence": self.min_confidence,
            "temperature": self.temperature,
            "training": self.training_record,
        }
        write_json(folder / _CONFIG, config)

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str]) -> Bridge:
        """Load what `save_pretrained` wrote; `BridgeError` for anything else."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(directory)
        for name in (_CONFIG, _WEIGHTS):
            if not (folder / name).is_file():
                raise BridgeError(f"bridge {os.fspath(folder)!r}: there is no {name}")
        config = read_json(folder / _CONFIG)
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise BridgeError(f"bridge {os.fspath(folder)!r}: {_CONFIG} is not of format {FORMAT}")
        try:
            space = GoalSpace.from_json(json.dumps(config["goal_space"]))
            space.check_fingerprint(config["goal_space_fingerprint"], f"bridge {os.fspath(folder)!r}")
            encoder = EncoderConfig(**config["encoder"])
            bridge = cls(
                load_backbone(encoder.backbone),
                encoder,
                space,
                min_confidence=config["min_confidence"],
                temperature=config["temperature"],
                training=config.get("training"),
            )
        except (KeyError, TypeError) as error:
            raise BridgeError(f"bridge {os.fspath(folder)!r}: {_CONFIG} is incomplete: {error}") from error
        try:
            bridge.model.load_trained_state(load_file(folder / _WEIGHTS))
        except (SafetensorError, OSError, ValueError) as error:
            raise BridgeError(f"bridge {os.fspath(folder)!r}: {_WEIGHTS} cannot be used: {error}") from error
        return bridge.eval()


def _declined(
    text: str,
    refusal: Refusal,
    confidence: Mapping[str, float] | None = None,
    words: Mapping[str, object] | None = None,
) -> Understanding:
    return Understanding(text, None, None, "normal", confidence or {}, True, refusal.reason, refusal.code, words or {})

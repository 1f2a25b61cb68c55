"""The network of the bridge: MiniLM with a LoRA adapter, slot queries over its tokens, and the goal embedding.

Learned queries attend to the token states, one for each position of the order, each colour, the kind, the caution and
the intent, so that "which colour comes second" is read wherever in the sentence it is said. The embedding rows are the
codes of the goal space weighted by the slots' probabilities, plus a small learned residual for what no slot holds:
a network output that lands on the canonical code when the slots are certain, and between codes when they are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffdecide.nets.language_backbone import LanguageBackbone, LoraSettings, add_lora
from lm_bridge.goals import COLOURS, TARGETS, GoalSpace
from lm_bridge.grammar import KINDS
from lm_bridge.instructions import INTENTS
from safety.tasks.spec import CAUTIONS

POSITIONS = 3
# Target classes: 0 is "no target at this position", then TARGETS.
TARGET_CLASSES = 1 + len(TARGETS)
_QUERIES = POSITIONS + len(COLOURS) + 3


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the bridge's own layers.

    Attributes:
        backbone: what `load_backbone` takes.
        lora_rank, lora_layers: the adapter; layers below the first of them stay frozen and cost no backward pass.
        width, depth, heads: of the slot decoder.
        lexical_layer: hidden state (0 = word embeddings) given to the slots beside the last one, for the words as such.
        residual_scale: largest entry of the embedding's residual.
        dropout: in the slot decoder.
    """

    backbone: str = "minilm"
    lora_rank: int = 12
    lora_layers: tuple[int, ...] = (2, 3, 4, 5)
    width: int = 160
    depth: int = 2
    heads: int = 4
    lexical_layer: int = 1
    residual_scale: float = 0.25
    dropout: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "lora_layers", tuple(self.lora_layers))
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise ValueError(f"bridge encoder: width must be a multiple of heads, got {self.width=}, {self.heads=}")
        if self.depth < 1 or self.lexical_layer < 0:
            raise ValueError(
                f"bridge encoder: depth >= 1, lexical_layer >= 0; got {self.depth=}, {self.lexical_layer=}"
            )
        if not 0 <= self.dropout < 1 or not self.residual_scale >= 0:
            raise ValueError(f"bridge encoder: got {self.dropout=}, {self.residual_scale=}")


@dataclass(frozen=True)
class SlotOutput:
    """Logits of every slot and the embedding rows.

    `kind` [B, 4], `targets` [B, 3, 6], `avoid` [B, 4] (binary), `caution` [B, 3], `intent` [B, 7],
    `embedding` [B, 3, 32] (rows behind the last target mean nothing).
    """

    kind: Tensor
    targets: Tensor
    avoid: Tensor
    caution: Tensor
    intent: Tensor
    embedding: Tensor


class SlotHeads(nn.Module):
    """Token states to slots; all that is trained beside the adapter."""

    def __init__(self, hidden: int, config: EncoderConfig, space: GoalSpace) -> None:
        super().__init__()
        self.residual_scale = config.residual_scale
        width = config.width
        self.last = nn.Linear(hidden, width)
        self.lexical = nn.Linear(hidden, width, bias=False)
        self.memory_norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(_QUERIES, width, generator=torch.Generator().manual_seed(0)) * 0.5)
        layer = nn.TransformerDecoderLayer(
            width, config.heads, 2 * width, config.dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, config.depth, norm=nn.LayerNorm(width))
        self.pooled = nn.Linear(hidden, width, bias=False)
        self.kind = nn.Linear(width, len(KINDS))
        self.target = nn.Linear(width, TARGET_CLASSES)
        self.avoid = nn.Linear(width, 1)
        self.caution = nn.Linear(width, len(CAUTIONS))
        self.intent = nn.Linear(width, len(INTENTS))
        self.residual = nn.Linear(width, space.dim)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)
        for name in ("target", "mode", "avoid", "caution"):
            codes = torch.as_tensor(getattr(space, f"{name}_codes"), dtype=torch.float32)
            self.register_buffer(f"{name}_codes", codes, persistent=False)

    def forward(self, last: Tensor, lexical: Tensor, mask: Tensor) -> SlotOutput:
        """`last`, `lexical` [B, L, hidden]; `mask` [B, L], 1 for tokens."""
        weight = mask[..., None].to(last.dtype)
        pooled = (last * weight).sum(1) / weight.sum(1).clamp_min(1.0)
        memory = self.last(last) + self.lexical(lexical) + _positions(last.shape[1], self.queries.shape[1], last)
        memory = self.memory_norm(memory)
        queries = self.queries + self.pooled(pooled)[:, None]
        states = self.decoder(queries, memory, memory_key_padding_mask=mask == 0)
        places, colours, rest = states.split((POSITIONS, len(COLOURS), 3), dim=1)
        kind, caution, intent = rest.unbind(1)
        logits = (self.kind(kind), self.target(places), self.avoid(colours)[..., 0], self.caution(caution))
        embedding = self._codes(*logits) + self.residual_scale * torch.tanh(self.residual(places))
        return SlotOutput(*logits, self.intent(intent), embedding)

    def _codes(self, kind: Tensor, targets: Tensor, avoid: Tensor, caution: Tensor) -> Tensor:
        rows = targets.shape[1]
        target = targets[..., 1:].softmax(-1) @ self.target_codes
        stay = kind.softmax(-1)[:, KINDS.index("stay")]
        mode = torch.stack([1.0 - stay, stay], -1) @ self.mode_codes
        signs = torch.tanh(avoid / 2.0) @ self.avoid_codes  # tanh(x / 2) = 2 sigmoid(x) - 1
        manner = caution.softmax(-1) @ self.caution_codes
        shared = torch.cat([mode, signs, manner], -1)[:, None].expand(-1, rows, -1)
        return torch.cat([target, shared], -1)


def _positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positions [L, width] (Vaswani et al. 2017), scaled to be a hint beside the content."""
    steps = torch.arange(length, device=like.device, dtype=like.dtype)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=like.dtype) * (-math.log(1e3) / width))
    angles = steps * rates
    return torch.cat([angles.sin(), angles.cos()], -1)[:, :width] * 0.5


class BridgeEncoder(nn.Module):
    """The backbone with its adapter and the heads; owns the loss, so any trainer can train it."""

    def __init__(self, backbone: LanguageBackbone, config: EncoderConfig, space: GoalSpace) -> None:
        super().__init__()
        if config.lexical_layer > backbone.num_layers:
            raise ValueError(f"bridge encoder: {backbone.num_layers} layers, but {config.lexical_layer=}")
        self.config = config
        settings = LoraSettings(rank=config.lora_rank, alpha=2.0 * config.lora_rank, layers=config.lora_layers)
        self.backbone = add_lora(backbone.model, settings)
        self.heads = SlotHeads(backbone.hidden_size, config, space)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SlotOutput:
        """`input_ids`, `attention_mask` [B, L] int64."""
        out = self.backbone(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return self.heads(out.last_hidden_state, out.hidden_states[self.config.lexical_layer], attention_mask)

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Cross entropy of the slots and the squared distance to the canonical rows, averaged over labelled sentences.

        `batch` as `train.collate` makes it. `generator` is part of the trainer's interface; nothing is drawn here.
        """
        out = self._by_length(batch["input_ids"], batch["attention_mask"])
        known = batch["known"].float()
        count = known.sum().clamp_min(1.0)
        order = F.cross_entropy(out.targets.transpose(1, 2), batch["targets"], reduction="none").sum(1)
        parts = {
            "kind": (F.cross_entropy(out.kind, batch["kind"], reduction="none") * known).sum() / count,
            "order": (order * known).sum() / count,
            "avoid": (
                F.binary_cross_entropy_with_logits(out.avoid, batch["avoid"], reduction="none").sum(1) * known
            ).sum()
            / count,
            "caution": (F.cross_entropy(out.caution, batch["caution"], reduction="none") * known).sum() / count,
            "intent": F.cross_entropy(out.intent, batch["intent"]),
        }
        rows = batch["row_mask"].float()
        distance = (out.embedding - batch["rows"]).square().mean(-1)
        parts["embedding"] = (distance * rows).sum() / rows.sum().clamp_min(1.0)
        return {
            "loss": torch.stack(list(parts.values())).sum(),
            **{name: part.detach() for name, part in parts.items()},
        }

    def _by_length(self, input_ids: Tensor, attention_mask: Tensor) -> SlotOutput:
        """`forward`, half by half in order of length: a third of the work is padding otherwise."""
        lengths = attention_mask.sum(1)
        order = lengths.argsort(stable=True)
        parts = []
        for rows in order.chunk(min(2, len(order))):
            longest = int(lengths[rows].max())
            parts.append(self(input_ids[rows, :longest], attention_mask[rows, :longest]))
        back = order.argsort()
        fields = ("kind", "targets", "avoid", "caution", "intent", "embedding")
        return SlotOutput(*(torch.cat([getattr(part, name) for part in parts])[back].float() for name in fields))

    def train(self, mode: bool = True) -> BridgeEncoder:
        """The backbone stays in evaluation mode: its dropout costs more time than it brings on endless data."""
        super().train(mode)
        self.backbone.eval()
        return self

    def trained_state(self) -> dict[str, Tensor]:
        """Adapter and heads, and nothing of the frozen backbone."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_trained_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of `trained_state`; a missing, surplus or misshapen tensor raises ValueError."""
        wanted = {name: p for name, p in self.named_parameters() if p.requires_grad}
        missing, surplus = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
        if missing or surplus:
            raise ValueError(
                f"bridge weights: missing {', '.join(missing[:4]) or 'none'} ({len(missing)}), "
                f"unexpected {', '.join(surplus[:4]) or 'none'} ({len(surplus)})"
            )
        for name, parameter in wanted.items():
            if tuple(state[name].shape) != tuple(parameter.shape):
                raise ValueError(
                    f"bridge weights: {name} must be {tuple(parameter.shape)}, got {tuple(state[name].shape)}"
                )
            parameter.copy_(state[name].to(parameter.dtype))

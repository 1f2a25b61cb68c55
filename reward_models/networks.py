"""One member of a reward model: steps of a segment -> a reward (and a cost) for each step, and a weight."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffdecide.data.normalize import Normalizer
from reward_models.config import RewardConfig


class StepInputs(nn.Module):
    """Observations [B, T, o], actions [B, T, a] -> normalised inputs [B, T, width].

    Each lidar ring is replaced by what it says about the nearest object: closeness, direction, the action along and
    across it, closing speed (from the velocimeter), and the closeness that follows one step later. The latter comes
    as `KNOTS` steps as well, each rising from 0 to 1 just behind its knot: a reward that jumps at some distance needs
    one weight, and few labels tell which. From raw bins all this takes many more.
    """

    KNOTS = 61  # multiples of 5 cm where the lidar sees 3 m
    # Of the distance between two knots: half a millimetre at a range of 3 m, about what the velocimeter foresees. An
    # agent that reaches a threshold stands a centimetre or less behind it, and inside the ramp the jump counts in part:
    # a ramp of 5 mm costs a point of accuracy.
    WIDTH = 0.01

    def __init__(self, config: RewardConfig) -> None:
        super().__init__()
        self.observation = Normalizer(config.observation_dim, clip=10.0)
        self.action = Normalizer(config.action_dim, clip=10.0)
        self.rings, self.velocity, self.reach = config.rings, config.velocity, config.reach
        spans = config.rings + config.ignored
        kept = [i for i in range(config.observation_dim) if not any(a <= i < b for a, b in spans)]
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long), persistent=False)
        each = 3 + 2 * config.action_dim + (0 if config.velocity is None else 2 + self.KNOTS)
        self.width = len(kept) + config.action_dim + each * len(config.rings)
        for number, (start, stop) in enumerate(config.rings):
            angle = (torch.arange(stop - start) + 0.5) * (2 * math.pi / (stop - start))
            self.register_buffer(f"ring_{number}", torch.stack([angle.cos(), angle.sin()], 1), persistent=False)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        parts = [self.observation(observations)[..., self.kept], self.action(actions)]
        for number, (start, stop) in enumerate(self.rings):
            values = observations[..., start:stop]
            bins = getattr(self, f"ring_{number}").to(values)
            closeness, index = values.max(-1, keepdim=True)
            # The nearest object fills its bin and both neighbours; the others would turn the direction away.
            count = stop - start
            around = (torch.arange(count, device=values.device) - index + count // 2) % count - count // 2
            direction = (values * (around.abs() <= 1)) @ bins
            direction = direction / (direction.square().sum(-1, keepdim=True) + 1e-8).sqrt()
            pushed = (parts[1][..., None] * direction[..., None, :]).flatten(-2)
            parts += [2 * closeness - 1, direction, pushed]
            if self.velocity is not None:
                speed = (observations[..., self.velocity : self.velocity + 2] * direction).sum(-1, keepdim=True)
                after = closeness + self.reach * speed
                place = torch.linspace(0, 1, self.KNOTS, device=after.device, dtype=after.dtype)
                steps = ((after - place) * ((self.KNOTS - 1) / self.WIDTH)).clamp(0, 1)
                parts += [speed, 2 * after - 1, steps]
        return torch.cat(parts, -1)


class LinearSteps(nn.Module):
    """Rewards that are a weighted sum of the inputs, each in units of its spread over comparisons.

    Among many steps of closeness few matter: an L1 penalty (`RewardConfig.sparsity`) finds them from few labels.
    """

    spread: Tensor  # [inputs]

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        self.register_buffer("spread", torch.ones(inputs))
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.layer(x / self.spread), None


class StepNetwork(nn.Module):
    """Rewards of single steps: an MLP."""

    def __init__(self, inputs: int, outputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        widths = [inputs] + [hidden] * depth
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.layers(x), None


class SegmentTransformer(nn.Module):
    """Causal transformer over the steps, then a weighted sum of their rewards.

    The weights are those of "Preference Transformer" (Kim et al. 2023, eq. 7): w_t = mean over i of softmax_t(q_i k_t),
    so a score depends on what mattered in the segment, not on single steps alone.
    """

    def __init__(self, inputs: int, outputs: int, config: RewardConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.longest = config.longest
        self.enter = nn.Linear(inputs, hidden)
        self.place = nn.Parameter(torch.randn(config.longest, hidden) * 0.02)
        # One layer at a time: nn.TransformerEncoder changes its path between training and evaluation.
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(hidden, config.heads, 2 * hidden, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(hidden)
        self.leave = nn.Linear(hidden, outputs)
        self.pair = nn.Linear(hidden, 2 * hidden)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        steps = x.shape[1]
        if steps > self.longest:
            raise ValueError(f"segments: expected at most {self.longest} steps (RewardConfig.longest), got {steps}")
        h = self.enter(x) + self.place[:steps]
        later = torch.ones(steps, steps, dtype=torch.bool, device=x.device).triu(1)
        absent = ~mask
        for block in self.blocks:
            h = block(h, src_mask=later, src_key_padding_mask=absent)
        h = self.norm(h)
        return self.leave(h), _importance(self.pair(h), mask)


class LoraTransformer(nn.Module):
    """A pretrained text transformer fed with steps instead of words; adapters and ends are learned."""

    def __init__(self, inputs: int, outputs: int, config: RewardConfig) -> None:
        super().__init__()
        from diffdecide.nets.language_backbone import PACKAGED, LoraSettings, add_lora, load_backbone

        options: dict[str, Any] = dict(config.lora)
        backbone = load_backbone(options.pop("backbone", PACKAGED))
        for name in ("layers", "targets"):
            if options.get(name) is not None:
                options[name] = tuple(options[name])
        self.longest = min(config.longest, backbone.max_tokens)
        self.backbone = add_lora(backbone.model, LoraSettings(**options))
        self.enter = nn.Linear(inputs, backbone.hidden_size)
        self.leave = nn.Linear(backbone.hidden_size, outputs)
        self.pair = nn.Linear(backbone.hidden_size, 2 * 32)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        if x.shape[1] > self.longest:
            raise ValueError(f"segments: expected at most {self.longest} steps for this backbone, got {x.shape[1]}")
        h = self.backbone(inputs_embeds=self.enter(x), attention_mask=mask.long()).last_hidden_state
        return self.leave(h), _importance(self.pair(h), mask)


def _importance(pair: Tensor, mask: Tensor) -> Tensor:
    """Weights [B, T] with mean 1 over the steps present."""
    query, key = pair.chunk(2, -1)
    logits = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
    attention = F.softmax(logits.masked_fill(~mask[:, None, :], -1e9), -1)
    rows = mask.to(attention.dtype)[..., None]
    return (attention * rows).sum(1)


def build_network(inputs: int, config: RewardConfig) -> nn.Module:
    """A network (x [B, T, inputs], mask [B, T]) -> (outputs [B, T, 1 or 2], weights [B, T] or None)."""
    outputs = 2 if config.cost_head else 1
    if config.network == "transformer":
        return SegmentTransformer(inputs, outputs, config)
    if config.network == "lora":
        return LoraTransformer(inputs, outputs, config)
    if config.network == "linear":
        return LinearSteps(inputs, outputs)
    return StepNetwork(inputs, outputs, config.hidden, config.depth)

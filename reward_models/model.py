"""RewardModel: an ensemble of reward networks with heads for reward and cost, its normaliser and its temperature.

A folder holds `config.json` and `model.safetensors`: everything that was learned, but not the frozen weights of a
pretrained backbone, which come from their own package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffdecide import noise
from diffdecide.data.normalize import Normalizer
from diffdecide.files import read_json, write_atomic, write_json
from reward_models import bradley_terry
from reward_models.config import RewardConfig
from reward_models.networks import LinearSteps, StepInputs, build_network

if TYPE_CHECKING:
    from reward_models.prompts import PromptEncoder

FORMAT = "diffdecide-reward-1"


@dataclass(frozen=True)
class RewardEstimate:
    """What a model says about each step.

    Attributes:
        reward: [B, T] mean over the members minus pessimism times their standard deviation.
        std: [B, T] over the members, 0 for one.
        cost: [B, T] >= 0, or None without a cost head.
    """

    reward: Tensor
    std: Tensor
    cost: Tensor | None


class RewardModel(nn.Module):
    """Reward of the steps of a segment, learned from comparisons.

    Args:
        config: see `RewardConfig`.
        seed: of the initial weights.
    """

    temperature: Tensor  # [] divides differences of scores
    scale: Tensor  # [] divides rewards that are handed out, see `set_scale`

    def __init__(self, config: RewardConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.inputs = StepInputs(config)
        width = self.inputs.width + config.prompt_dim
        with noise.seeded(seed):
            self.members = nn.ModuleList(build_network(width, config) for _ in range(config.members))
        if config.ties != "soft":
            self.tie_width = nn.Parameter(torch.zeros(()))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("scale", torch.ones(()))
        self.meta: dict[str, Any] = {}
        self._encoder: PromptEncoder | None = None

    def set_normaliser(self, observations: np.ndarray, actions: np.ndarray) -> None:
        """Take mean and spread of inputs from data [S, o] and [S, a]."""
        for name, values in (("observation", observations), ("action", actions)):
            fitted = Normalizer.fit(values, clip=10.0)
            getattr(self.inputs, name).load_state_dict(fitted.state_dict())

    def set_spread(self, differences: np.ndarray) -> None:
        """Take the unit of each linear weight from differences [N, width] of two segments' summed inputs."""
        spread = torch.as_tensor(differences.std(0), dtype=torch.float32)
        # An input that never differs decides nothing: its weight must not grow huge for want of a unit.
        spread = torch.where(spread > 1e-3, spread, torch.ones_like(spread))
        for member in self.members:
            if isinstance(member, LinearSteps):
                member.spread[: len(spread)] = spread

    def steps(
        self, observations: Tensor, actions: Tensor, mask: Tensor | None = None, prompt: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rewards [M, B, T] of every member, weighted where the network weighs, and costs [M, B, T] or None.

        Args:
            observations, actions: [B, T, o] and [B, T, a].
            mask: [B, T], True = a step; None: all are.
            prompt: [B, P] or [1, P].

        Raises:
            ValueError: a shape that does not fit.
        """
        config = self.config
        for name, value, width in (
            ("observations", observations, config.observation_dim),
            ("actions", actions, config.action_dim),
        ):
            if value.ndim != 3 or value.shape[2] != width or value.shape[:2] != observations.shape[:2]:
                raise ValueError(f"{name} must have shape [B, T, {width}], got {tuple(value.shape)}")
        if mask is None:
            mask = torch.ones(observations.shape[:2], dtype=torch.bool, device=observations.device)
        return self.members_on(self.inputs(observations, actions), mask, prompt)

    def members_on(self, x: Tensor, mask: Tensor, prompt: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `steps`, for inputs [B, T, width] that `self.inputs` has made already."""
        config = self.config
        if config.prompt_dim:
            if prompt is None or prompt.ndim != 2 or prompt.shape[1] != config.prompt_dim:
                given = None if prompt is None else tuple(prompt.shape)
                raise ValueError(f"prompt must have shape [B, {config.prompt_dim}], got {given}")
            x = torch.cat([x, prompt[:, None].expand(len(x), x.shape[1], -1).to(x)], -1)
        elif prompt is not None:
            raise ValueError("this model is not conditioned on a prompt, but one was given")
        rewards, costs = [], []
        for member in self.members:
            output, weight = member(x, mask)
            reward = output[..., 0].float()
            rewards.append((reward if weight is None else reward * weight.float()) * mask)
            if config.cost_head:
                costs.append(torch.nn.functional.softplus(output[..., 1].float()) * mask)
        return torch.stack(rewards), torch.stack(costs) if costs else None

    def score(self, rewards: Tensor, mask: Tensor) -> Tensor:
        """Scores [M, B] of segments from step rewards [M, B, T]."""
        total = rewards.sum(-1)
        return total if self.config.length == "sum" else total / mask.sum(-1).clamp_min(1)

    def predict(
        self, observations: Tensor, actions: Tensor, mask: Tensor | None = None, prompt: Tensor | None = None
    ) -> RewardEstimate:
        """Estimates for every step; differentiable in observations and actions."""
        rewards, costs = self.steps(observations, actions, mask, prompt)
        std = rewards.std(0) if len(rewards) > 1 else torch.zeros_like(rewards[0])
        reward = rewards.mean(0) - self.config.pessimism * std
        return RewardEstimate(reward / self.scale, std / self.scale, None if costs is None else costs.mean(0))

    def delta(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Differences of scores [M, B] for a batch of comparisons, and predicted costs [2, M, B] or None."""
        scores, costs = [], []
        for side in ("1", "2"):
            mask, prompt = _get(batch, f"mask_{side}"), batch.get("prompt")
            if f"inputs_{side}" in batch:
                rewards, cost = self.members_on(batch[f"inputs_{side}"], mask, prompt)
            else:
                rewards, cost = self.steps(_get(batch, f"obs_{side}"), _get(batch, f"act_{side}"), mask, prompt)
            scores.append(self.score(rewards, mask))
            if cost is not None:
                costs.append(cost.sum(-1))
        return scores[0] - scores[1], torch.stack(costs) if costs else None

    def probability(self, batch: Mapping[str, Tensor]) -> Tensor:
        """P(first preferred) [B] by the mean of the members, at the calibrated temperature."""
        delta, _ = self.delta(batch)
        return bradley_terry.probability(delta.mean(0) / self.temperature, noise_floor=self.config.noise_floor)

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Negative log-likelihood of the answers, mean over comparisons and members.

        Args:
            batch: obs_1, obs_2 [B, T, o], act_1, act_2 [B, T, a] (or inputs_1, inputs_2 [B, T, width], made from them
                by `self.inputs`), mask_1, mask_2 [B, T], label [B]; optionally
                margin [B], bootstrap [B, M], prompt [B, P]; with a cost head cost_1, cost_2 [B].
            generator: unused, there is no noise in this loss.

        Returns:
            "loss" (differentiable), "preference", "accuracy" and "cost" for the record.
        """
        config = self.config
        delta, costs = self.delta(batch)
        label = _get(batch, "label")[None].expand_as(delta)
        if config.ties == "soft":
            margin = batch.get("margin")
            each = bradley_terry.bradley_terry_loss(
                delta, label, margin=margin, smoothing=config.smoothing, noise_floor=config.noise_floor
            )
        else:
            logs = (
                bradley_terry.rao_kupper(delta, torch.nn.functional.softplus(self.tie_width))
                if config.ties == "rao_kupper"
                else bradley_terry.davidson(delta, self.tie_width)
            )
            each = bradley_terry.tie_loss(logs, label, smoothing=config.smoothing)
        weight = batch.get("bootstrap") if config.bootstrap and config.members > 1 else None
        each = each if weight is None else each * weight.T
        preference = each.mean()
        with torch.no_grad():
            decided = label[0] != 0.5
            right = ((delta.mean(0) > 0) == (label[0] > 0.5))[decided]
            accuracy = right.float().mean() if len(right) else torch.ones(())
        penalty = config.sparsity * sum(m.layer.weight.abs().sum() for m in self.members if isinstance(m, LinearSteps))
        parts = {"loss": preference + penalty / config.members, "preference": preference.detach(), "accuracy": accuracy}
        if costs is not None:
            wanted = torch.stack([_get(batch, "cost_1"), _get(batch, "cost_2")])[:, None]
            error = torch.nn.functional.smooth_l1_loss(costs, wanted.expand_as(costs))
            parts["loss"] = parts["loss"] + config.cost_weight * error
            parts["cost"] = error.detach()
        return parts

    def embed(self, prompt: str) -> Tensor | None:
        """Embedding [1, P] of a text by this model's own language model; None for a model that takes no prompt.

        Raises:
            ValueError: the model was trained on embeddings that the caller brought, or the text is empty.
        """
        if not self.config.prompt_dim:
            return None
        if self.config.prompt_encoder is None:
            raise ValueError("this reward model was trained on embeddings of your own: give it those, not a text")
        from reward_models.prompts import PromptEncoder

        if self._encoder is None:
            self._encoder = PromptEncoder(self.config.prompt_encoder)
        return torch.from_numpy(self._encoder([prompt]))

    def set_scale(self, std: float) -> None:
        """Hand out rewards divided by `std`: Bradley-Terry fixes no unit."""
        if not 0 < std < float("inf"):
            raise ValueError(f"scale must be positive, got {std}")
        self.scale.fill_(std)

    def require_env(self, env_id: str, observation_dim: int | None = None) -> None:
        """Refuse another environment than the one the model was trained for.

        Raises:
            ValueError: naming both.
        """
        if self.config.env_id is not None and self.config.env_id != env_id:
            raise ValueError(f"this reward model was trained for {self.config.env_id}, it cannot judge {env_id}")
        if observation_dim is not None and observation_dim != self.config.observation_dim:
            raise ValueError(
                f"this reward model takes observations of length {self.config.observation_dim}, "
                f"{env_id} has {observation_dim}"
            )

    def learned(self) -> dict[str, Tensor]:
        """State without the frozen weights of a backbone."""
        frozen = {name for name, p in self.named_parameters() if not p.requires_grad}
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if name not in frozen and (".backbone." not in name or "lora_" in name)
        }

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors`, each whole or not at all."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.learned().items()}
        write_atomic(folder / "model.safetensors", lambda temporary: save_file(tensors, temporary))
        write_json(folder / "config.json", {"format": FORMAT, "reward": self.config.to_dict(), "meta": self.meta})

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, pessimism: float | None = None) -> RewardModel:
        """Read a model; `pessimism` overrides the saved one.

        Raises:
            ValueError: the folder is not a reward model, or a file of it is damaged.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} holds no reward model: expected config.json in it")
        config = read_json(folder / "config.json")
        if config.get("format") != FORMAT:
            raise ValueError(f"{folder} holds no reward model of format {FORMAT}, but {config.get('format')!r}")
        try:
            model = cls(RewardConfig.from_dict(config["reward"]))
            tensors = load_file(folder / "model.safetensors")
        except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder}: the reward model is damaged ({error})") from error
        wanted = model.learned()
        odd = sorted(n for n in wanted.keys() | tensors.keys() if _shape(wanted, n) != _shape(tensors, n))
        if odd:
            raise ValueError(f"{folder}: the reward model is damaged: {', '.join(odd[:5])} do not fit")
        model.load_state_dict(tensors, strict=False)
        model.meta = dict(config.get("meta") or {})
        if pessimism is not None:
            model.config = model.config.replaced(pessimism=pessimism)
        return model.eval()


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def _get(batch: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in batch:
        raise ValueError(f"the batch lacks {key!r}; it has {', '.join(sorted(batch))}")
    return batch[key]

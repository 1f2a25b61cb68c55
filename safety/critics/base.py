"""What all critics share: settings, inputs and their normaliser, target networks, saving.

A critic owns `loss(batch, generator)`, so the trainer that trains everything else trains it too. In training mode each
call of `loss` first moves the target networks by `target_rate`: they are buffers and so part of every checkpoint.

Time-outs: a step is the end of the world only where `terminal` says so. A time-out is not passed in at all; the value
of the state behind it is bootstrapped as everywhere else (F. Pardo et al., "Time limits in reinforcement learning",
2018).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from safety.critics.networks import EnsembleMLP

FORMAT = "safety-critic-1"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """Settings of a critic.

    Attributes:
        observation_dim, action_dim: o, a.
        hidden: widths of the networks.
        ensemble: members; a prediction takes the most pessimistic one.
        gamma: discount per control step.
        target_rate: share by which target networks follow in each step of training.
        quantiles: of the distributional critic.
        cvar: the worst share over which the distributional critic's risk is averaged; 1 is the mean.
        expectile: of the feasibility critic's state value over the actions in the data: towards 1 it becomes the value
            of the best action that the data supports (FISOR; Y. Zheng et al., 2024).
        reach: the feasibility critic clips constraint values to [-reach, reach]; farther away is safe enough.
    """

    observation_dim: int
    action_dim: int
    hidden: tuple[int, ...] = (128, 128)
    ensemble: int = 2
    gamma: float = 0.97
    target_rate: float = 0.01
    quantiles: int = 32
    cvar: float = 0.1
    expectile: float = 0.9
    reach: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(width) for width in self.hidden))
        for name in ("observation_dim", "action_dim", "ensemble", "quantiles"):
            if getattr(self, name) < 1:
                raise ValueError(f"CriticConfig.{name} must be at least 1, got {getattr(self, name)}")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"CriticConfig.hidden must hold widths of at least 1, got {self.hidden}")
        if not 0 <= self.gamma < 1:
            raise ValueError(f"CriticConfig.gamma must lie in [0, 1), got {self.gamma}")
        for name in ("target_rate", "cvar"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"CriticConfig.{name} must lie in (0, 1], got {getattr(self, name)}")
        if not 0.5 <= self.expectile < 1:
            raise ValueError(f"CriticConfig.expectile must lie in [0.5, 1), got {self.expectile}")
        if not 0 < self.reach < float("inf"):
            raise ValueError(f"CriticConfig.reach must be a positive number, got {self.reach}")


class Critic(nn.Module):
    """Predicts what lies ahead of a state [B, o] and of an action [B, a] in it.

    `risk` and `state_risk` are what filters and guides ask for: larger is worse, differentiable in the action, the most
    pessimistic member of the ensemble. Units: discounted cost for the cost critics; metres (or m/s) inside what is
    forbidden for the feasibility critic, negative where all stays allowed.
    """

    kind: ClassVar[str] = ""
    needs: ClassVar[str] = "cost"  # the batch's column that says what a step cost
    outputs: ClassVar[int] = 1
    observation_offset: Tensor
    observation_scale: Tensor
    action_offset: Tensor
    action_scale: Tensor
    output_scale: Tensor

    def __init__(self, config: CriticConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        both, width = config.observation_dim + config.action_dim, self._width()
        self.action_net = EnsembleMLP(both, width, config.hidden, config.ensemble, seed=seed)
        self.state_net = EnsembleMLP(config.observation_dim, width, config.hidden, config.ensemble, seed=seed + 1)
        options = {"trained": False, "seed": seed + 1}
        self.target_net = EnsembleMLP(config.observation_dim, width, config.hidden, config.ensemble, **options)  # type: ignore[arg-type]
        for name, size in (("observation", config.observation_dim), ("action", config.action_dim)):
            self.register_buffer(f"{name}_offset", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.register_buffer("output_scale", torch.ones(()))

    def _width(self) -> int:
        return self.outputs

    @torch.no_grad()
    def set_normaliser(self, observations: Tensor, actions: Tensor, costs: Tensor | None = None) -> None:
        """Take means and spreads from training data [N, o], [N, a], [N]; call it once before training.

        Raises:
            ValueError: shapes that do not fit, or numbers that are not finite.
        """
        for name, data, size in (
            ("observation", observations, self.config.observation_dim),
            ("action", actions, self.config.action_dim),
        ):
            if data.ndim != 2 or data.shape[1] != size or len(data) == 0:
                raise ValueError(f"{name}s must be [N, {size}] with N > 0, got {tuple(data.shape)}")
            if not bool(torch.isfinite(data).all()):
                raise ValueError(f"{name}s must be finite, they hold NaN or infinity")
            spread = data.double().std(0, unbiased=False)
            getattr(self, f"{name}_offset").copy_(data.double().mean(0))
            getattr(self, f"{name}_scale").copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        self._set_output_scale(costs)

    def _set_output_scale(self, costs: Tensor | None) -> None:
        """Cost critics: the largest discounted cost there can be, shortened by how rare cost is."""
        if costs is None:
            return
        mean = float(costs.double().mean()) / (1 - self.config.gamma)
        self.output_scale.fill_(max(1.0, mean))

    def _inputs(self, observation: Tensor, action: Tensor | None) -> Tensor:
        if observation.ndim != 2 or observation.shape[1] != self.config.observation_dim:
            raise ValueError(f"observation must be [B, {self.config.observation_dim}], got {tuple(observation.shape)}")
        parts = [(observation - self.observation_offset) / self.observation_scale]
        if action is not None:
            if action.shape != (len(observation), self.config.action_dim):
                raise ValueError(
                    f"action must be [{len(observation)}, {self.config.action_dim}], got {tuple(action.shape)}"
                )
            parts.append((action - self.action_offset) / self.action_scale)
        return torch.cat(parts, 1)

    def action_values(self, observation: Tensor, action: Tensor) -> Tensor:
        """Outputs [E, B, width] for actions, in units of the data."""
        return self.action_net(self._inputs(observation, action)) * self.output_scale

    def state_values(self, observation: Tensor, *, target: bool = False) -> Tensor:
        """Outputs [E, B, width] for states, in units of the data; those of the target networks if `target`."""
        network = self.target_net if target else self.state_net
        return network(self._inputs(observation, None)) * self.output_scale

    def risk(self, observation: Tensor, action: Tensor) -> Tensor:
        """Risk [B] of taking `action`; differentiable."""
        return self._risk(self.action_values(observation, action))

    def state_risk(self, observation: Tensor) -> Tensor:
        """Risk [B] of a state."""
        return self._risk(self.state_values(observation))

    def _risk(self, values: Tensor) -> Tensor:
        raise NotImplementedError

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Temporal-difference loss.

        Args:
            batch: observation [B, o], action [B, a], next_observation [B, o], terminal [B] (1 where the task itself
                ended; time-outs are 0), and `needs`: cost [B] or constraint [B].
            generator: unused, there is no noise in this loss.

        Returns:
            "loss" (differentiable) and figures for the record.

        Raises:
            ValueError: a missing key or a shape that does not fit.
        """
        if self.training and torch.is_grad_enabled():
            self.target_net.follow(self.state_net, self.config.target_rate)
        return self._loss(batch)

    def _loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def _columns(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        names = ("observation", "action", "next_observation", self.needs, "terminal")
        missing = [name for name in names if name not in batch]
        if missing:
            raise ValueError(f"the batch of a {self.kind} critic lacks {missing}; it has {sorted(batch)}")
        observation, action, following, paid, terminal = (batch[name] for name in names)
        rows = len(observation)
        for name, column in ((self.needs, paid), ("terminal", terminal)):
            if column.shape != (rows,):
                raise ValueError(f"{name} must be [{rows}], got {tuple(column.shape)}")
        return observation, action, following, paid.float(), terminal.float()

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "kind": self.kind, "config": asdict(self.config)}, indent=2) + "\n"
        for name, write in (
            (CONFIG, lambda path: path.write_text(text, encoding="utf-8")),
            (WEIGHTS, lambda path: save_file({k: v.contiguous() for k, v in self.state_dict().items()}, path)),
        ):
            temporary = folder / f".{name}.tmp"
            write(temporary)  # type: ignore[no-untyped-call]
            temporary.replace(folder / name)

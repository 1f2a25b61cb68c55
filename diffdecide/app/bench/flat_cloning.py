"""Behaviour cloning from the flat observation: works on any data file and any task, with or without geometry."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffdecide.app.bench.timing import Stopwatch
from diffdecide.policy import Action

if TYPE_CHECKING:
    from diffdecide.data.episode import Episode
    from safety.layout import EnvSpec

HELD_OUT, CHECK_EVERY, PATIENCE = 0.1, 500, 12  # share of episodes; steps; checks without a better loss on them


@dataclass(frozen=True, kw_only=True)
class FlatCloningConfig:
    """Sizes of the network."""

    observation_dim: int
    action_dim: int
    hidden: int = 256

    def __post_init__(self) -> None:
        for name in ("observation_dim", "action_dim", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"FlatCloningConfig.{name} must be at least 1, got {getattr(self, name)}")


class FlatCloning(nn.Module):
    """Observation [B, o] -> action [B, a] in [-1, 1] of the data's action range, by regression."""

    def __init__(self, config: FlatCloningConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Linear(config.observation_dim, config.hidden),
                nn.SiLU(),
                nn.Linear(config.hidden, config.hidden),
                nn.SiLU(),
                nn.Linear(config.hidden, config.action_dim),
            )
        self.register_buffer("offset", torch.zeros(config.observation_dim))
        self.register_buffer("scale", torch.ones(config.observation_dim))
        self.register_buffer("reach", torch.ones(config.action_dim))

    @torch.no_grad()
    def set_normaliser(self, observations: Tensor, actions: Tensor) -> None:
        """Means and spreads of the inputs, and the range of the actions (motors saturate far below the bounds)."""
        spread = observations.std(0)
        self.offset.copy_(observations.mean(0))
        self.scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        self.reach.copy_(actions.abs().quantile(0.99, dim=0).clamp_min(1e-6))

    def forward(self, observation: Tensor) -> Tensor:
        """Actions [B, a]."""
        return self.network((observation - self.offset) / self.scale).tanh() * self.reach

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Squared error in units of the actions' range."""
        wanted = (batch["action"] / self.reach).clamp(-1, 1)
        return {"loss": (self(batch["observation"]) / self.reach - wanted).square().mean()}

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write flat_cloning.json and flat_cloning.safetensors."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "flat_cloning.safetensors")
        (folder / "flat_cloning.json").write_text(json.dumps(asdict(self.config)) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> FlatCloning:
        """Read a saved network; ValueError where there is none."""
        try:
            config = json.loads((Path(folder) / "flat_cloning.json").read_text(encoding="utf-8"))
            model = cls(FlatCloningConfig(**config))
            model.load_state_dict(load_file(Path(folder) / "flat_cloning.safetensors"))
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{folder} holds no cloned policy that can be read: {error}") from None
        return model.eval()


class FlatCloningPolicy:
    """The cloned network as a policy."""

    def __init__(self, folder: str) -> None:
        self.model = FlatCloning.from_pretrained(folder)

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        """Check that the network fits the environment."""
        config = self.model.config
        if (config.observation_dim, config.action_dim) != (spec.observation_dim, spec.action_dim):
            raise ValueError(
                f"the cloned policy takes {config.observation_dim} values and gives {config.action_dim}; "
                f"{spec.id} has {spec.observation_dim} and {spec.action_dim}"
            )

    @torch.no_grad()
    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        action = self.model(torch.as_tensor(observation, dtype=torch.float32)[None])[0]
        return Action(action.double().numpy(), {})


def train_flat_cloning(
    episodes: Sequence[Episode], out: Path, *, seed: int, seconds: float, safe_below: float | None = None
) -> dict[str, Any]:
    """Train on all episodes or on those whose cost is at most `safe_below`.

    A tenth of the episodes is held out: the network that did best on them is kept, and training ends when it has not
    got better for long, `seconds` of processor time at the latest.

    Raises:
        ValueError: no episode is left.
    """
    chosen = [e for e in episodes if safe_below is None or e.total_cost <= safe_below]
    if not chosen:
        lowest = min((e.total_cost for e in episodes), default=float("nan"))
        raise ValueError(f"no episode costs at most {safe_below}; the cheapest of {len(episodes)} costs {lowest}")
    observations, actions, held_out = _split(chosen, seed)
    config = FlatCloningConfig(observation_dim=observations.shape[1], action_dim=actions.shape[1])
    model = FlatCloning(config, seed=seed)
    model.set_normaliser(observations, actions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    watch, steps, stale, least = Stopwatch(), 0, 0, float("inf")
    best = copy.deepcopy(model.state_dict())
    while (watch.spent < seconds and stale < PATIENCE) or steps == 0:
        rows = torch.randint(len(observations), (512,), generator=generator)
        parts = model.loss({"observation": observations[rows], "action": actions[rows]}, generator)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        steps += 1
        if steps % CHECK_EVERY == 0 or steps == 1:
            with torch.no_grad():
                loss = float(model.loss(held_out, generator)["loss"])
            stale = 0 if loss < least else stale + 1
            if loss < least:
                least, best = loss, copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    model.save_pretrained(out)
    return {"steps": steps, "seconds": watch.spent, "wall": watch.wall, "loss": least, "episodes": len(chosen)}


def _split(episodes: Sequence[Episode], seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Observations [N, o] and actions [N, a] to learn from, and a batch to check on; of one episode, the same."""
    order = np.random.default_rng(seed).permutation(len(episodes))
    count = max(1, round(HELD_OUT * len(episodes)))
    parts = [order[count:] if len(order) > 1 else order, order[:count]]
    (seen, done), (held, wanted) = (
        [
            torch.from_numpy(np.concatenate([getattr(episodes[i], name) for i in part]))
            for name in ("observations", "actions")
        ]
        for part in parts
    )
    few = slice(None, None, max(1, len(held) // 10_000))
    return seen, done, {"observation": held[few], "action": wanted[few]}

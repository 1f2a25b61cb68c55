"""Behaviour cloning: the row of the table that says what the data alone are worth.

The same conditioner and the same windows as the planner's, a plain network in place of the diffusion model, the mean
squared error in place of the denoising loss (Pomerleau, 1991). One plan comes out, nothing is ranked or projected.
`CloningPlanner` offers what an agent asks of a planner, so the same agent, filter and tasks serve both.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors import SafetensorError
from torch import Tensor, nn

from diffdecide.features import SceneTokens, token_kind
from diffdecide.files import write_json
from diffdecide.nets.mlp import check_sizes
from diffdecide.nets.object_tokens import ABSENT, ObjectTokens
from diffdecide.plan import Plan
from diffdecide.plan_format import PlanFormat
from safety.constraints import Ball
from safety.controllers.objective import HARD_KINDS
from safety.dynamics import dynamics_for
from safety.scene import Scene

MARKER = "cloning.json"


@dataclass(frozen=True, kw_only=True)
class CloningConfig(PlanFormat):
    """What a cloned policy was trained for, and how often it looks again (`replan` control steps)."""


class BehaviourCloning(ModelMixin, ConfigMixin):
    """Context to plan [B, H, D] in one pass.

    Args:
        horizon, dim: H rows of D values.
        ego_dim, token_dim, goal_dim, context_dim, tokens_options: of the conditioner, as in `TrajectoryDiffusion`.
        width, layers: of the head.
        target_weight: weight of the pointer's cross-entropy, as in `TrajectoryDiffusion`.
    """

    @register_to_config
    def __init__(
        self,
        horizon: int,
        dim: int,
        ego_dim: int,
        token_dim: int,
        goal_dim: int,
        context_dim: int = 128,
        width: int = 384,
        layers: int = 3,
        tokens_options: dict[str, Any] | None = None,
        target_weight: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes(horizon=horizon, dim=dim, width=width, layers=layers)
        if target_weight < 0:
            raise ValueError(f"target_weight must not be negative, got {target_weight}")
        self.conditioner = ObjectTokens(ego_dim, token_dim, goal_dim, context_dim, **(tokens_options or {}))
        sizes = [context_dim, *[width] * layers]
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.head = nn.Sequential(*hidden, nn.Linear(sizes[-1], horizon * dim))

    def forward(self, ego: Tensor, tokens: Tensor, token_mask: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [B, H, D] and target logits [B, K] for ego [B, E], tokens [B, K, F], token_mask [B, K], goal [B, G]."""
        encoded = self.conditioner(ego, tokens, token_mask, goal)
        rows = self.head(encoded.context).unflatten(-1, (self.config["horizon"], self.config["dim"]))
        return rows, encoded.target_logits

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Mean squared error over the rows that count, plus the pointer's cross-entropy.

        Args:
            batch: trajectory [B, H, D], mask [B, H], ego, tokens, token_mask, goal, and optionally target_index [B].
            generator: not used; the loss is not random.

        Raises:
            ValueError: a missing key or a shape that does not fit.
        """
        missing = [n for n in ("trajectory", "mask", "ego", "tokens", "token_mask", "goal") if n not in batch]
        if missing:
            raise ValueError(f"the batch lacks {', '.join(missing)}; it has {', '.join(sorted(batch))}")
        wanted = batch["trajectory"]
        shape = (self.config["horizon"], self.config["dim"])
        if wanted.shape[1:] != shape:
            raise ValueError(f"trajectory must have shape [B, {shape[0]}, {shape[1]}], got {tuple(wanted.shape)}")
        rows, logits = self(batch["ego"], batch["tokens"], batch["token_mask"], batch["goal"])
        weight = batch["mask"].to(wanted.dtype)
        weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-8)
        error = ((rows - wanted).square().mean(2) * weight).sum(1).mean()
        pointed = _pointer_loss(logits, batch.get("target_index"))
        loss = error + self.config["target_weight"] * pointed
        return {"loss": loss, "error": error.detach(), "target": pointed.detach()}


def _pointer_loss(logits: Tensor, index: Tensor | None) -> Tensor:
    if index is None or not logits.shape[1]:
        return logits.sum() * 0
    at_target = logits.gather(1, index.clamp_min(0)[:, None])[:, 0]
    index = torch.where(at_target < ABSENT / 2, -1, index)  # a target that is not present teaches nothing
    return F.cross_entropy(logits, index, ignore_index=-1, reduction="sum") / len(logits)


class CloningPlanner:
    """A cloned policy with the face of a planner: `reset`, `plan`, `save_pretrained`, `from_pretrained`."""

    def __init__(self, model: BehaviourCloning, config: CloningConfig) -> None:
        if model.config["horizon"] != config.rows.rows:
            raise ValueError(f"the model has {model.config['horizon']} rows, its config has {config.rows.rows}")
        self.model = model.eval()
        self.config = config
        self.dynamics = dynamics_for(config.agent)

    def reset(self, *, seed: int) -> None:
        """Nothing to forget, nothing random."""

    @torch.no_grad()
    def plan(
        self,
        scene: Scene,
        tokens: SceneTokens,
        goal: np.ndarray,
        *,
        constraints: Sequence[Ball] = (),
        margin: float,
        elapsed: int | None = None,
        budget: float | None = None,
    ) -> Plan:
        """The one plan that the network gives; see `Planner.plan` for the arguments. Only scene and goal matter."""
        rows, logits = self.model(
            torch.from_numpy(tokens.ego)[None],
            torch.from_numpy(tokens.tokens)[None],
            torch.from_numpy(tokens.mask)[None],
            torch.from_numpy(np.asarray(goal, dtype=np.float32))[None],
        )
        actions = self.dynamics.command(self.config.rows.expand(rows[0].clamp(-1, 1).numpy()))
        states = np.asarray(self.dynamics.rollout(scene.state.astype(np.float32), actions))
        chance = torch.softmax(logits[0], -1).numpy()
        kind = token_kind(tokens, int(chance.argmax()))
        places = scene.of_kind(kind) if kind else np.zeros(0, dtype=int)
        return Plan(
            actions=np.asarray(actions),
            states=states,
            candidates=states[None, :, :2],
            costs=np.zeros(1, dtype=np.float32),
            chosen=0,
            clearance=_clearance(states, scene),
            margin=margin,
            target=np.asarray(scene.positions[places[0]] if len(places) else states[-1, :2], dtype=np.float64),
            target_confidence=float(chance.max()) if len(places) else 0.0,
        )

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str | None = None) -> None:
        """Write the policy to `folder`; with a model card as README.md."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder / "network")
        write_json(folder / MARKER, self.config.to_dict())
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> CloningPlanner:
        """Read what `save_pretrained` wrote.

        Raises:
            ValueError: the folder holds no cloned policy, or a file of it is damaged.
        """
        folder = Path(folder)
        if not (folder / MARKER).is_file():
            raise ValueError(f"{folder} holds no cloned policy: expected a {MARKER} in it")
        try:
            config = CloningConfig.from_dict(json.loads((folder / MARKER).read_text(encoding="utf-8")))
            model = BehaviourCloning.from_pretrained(folder / "network")
            model.register_to_config(_name_or_path="")  # diffusers notes the folder, and would save it again
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"the cloned policy in {folder} is damaged: {type(error).__name__}: {error}") from error
        return cls(model.float(), config)


def _clearance(states: np.ndarray, scene: Scene) -> np.ndarray:
    """Distance [T] in metres to the nearest hard obstacle's radius; inf without any."""
    hard = scene.of_kind(*HARD_KINDS)
    offset = states[:, None, :2] - scene.positions[hard]
    return (np.linalg.norm(offset, axis=-1) - scene.radii[hard]).min(-1, initial=np.inf)

"""Inverse dynamics: which actions lead along given states."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from diffdecide import noise
from diffdecide.nets.mlp import check_sizes


class InverseDynamics(ModelMixin, ConfigMixin):
    """Actions of the next rows of a plan from where the agent is and the states that the rows shall reach.

    Decision Diffuser (Ajay et al. 2023, eq. 4) reads one action from two successive states; this is the same with
    `rows` = 1. More rows at once average over the noise of planned states, which in finely stepped tasks is as large
    as the step itself, and cost one call.

    The network sees the current observation (`tokens`), the actions before it (`ego`), the current state, and the
    difference of each wanted state to it in units of its spread in the data.

    Args:
        ego_dim: E, previous actions.
        token_dim: K x F, the observation tokens laid flat.
        state_dim: S of a plan row, in front of its action.
        action_dim: A.
        rows: n, actions that are read at once.
        history: rows of a plan that lie in the past; the last of them holds the current state.
        width, layers: size of the network.
        state_noise: standard deviation of noise on the wanted states in training, in normalised units: planned states
            are never as clean as recorded ones.
    """

    @register_to_config
    def __init__(
        self,
        ego_dim: int,
        token_dim: int,
        state_dim: int,
        action_dim: int,
        rows: int = 1,
        history: int = 1,
        width: int = 256,
        layers: int = 2,
        state_noise: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(ego_dim=ego_dim, token_dim=token_dim, state_dim=state_dim, action_dim=action_dim)
        check_sizes(rows=rows, history=history, width=width, layers=layers)
        if not 0 <= state_noise < float("inf"):
            raise ValueError(f"state_noise must be finite and not negative, got {state_noise}")
        self._sizes = {"ego": ego_dim, "tokens": token_dim, "state": state_dim}
        sizes = [ego_dim + token_dim + state_dim * (1 + rows), *[width] * layers]
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.LayerNorm(b), nn.SiLU())]
        self.network = nn.Sequential(*hidden, nn.Linear(width, rows * action_dim))
        self.register_buffer("step_scale", torch.ones(rows, state_dim))

    @torch.no_grad()
    def set_normaliser(self, trajectory: Tensor, mask: Tensor) -> None:
        """Take the spread of the state differences from training windows [B, H, D] with mask [B, H].

        Raises:
            ValueError: windows of another shape, or none that is whole in the rows that count.
        """
        state, wanted, _, present = self._split(trajectory, mask)
        whole = present.all(1)
        if not bool(whole.any()):
            raise ValueError(f"mask leaves no window with {self.config['rows']} whole rows behind the history")
        steps = (wanted - state[:, None])[whole]
        spread = steps.std(0, unbiased=False)
        # A state that never moves says nothing about the action: one unit stands in for its spread.
        self.step_scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def forward(self, ego: Tensor, tokens: Tensor, state: Tensor, wanted: Tensor) -> Tensor:
        """Actions [B, n, A].

        Args:
            ego: [B, E].
            tokens: [B, K, F].
            state: [B, S] the current state.
            wanted: [B, n, S] the states to be reached at the end of the next n rows.

        Raises:
            ValueError: a shape does not fit.
        """
        rows, width = self.config["rows"], self._sizes["state"]
        flat = tokens.flatten(1)
        given = {"ego": ego.shape[-1], "tokens": flat.shape[-1], "state": state.shape[-1]}
        for name, size in given.items():
            if size != self._sizes[name]:
                raise ValueError(f"{name} must hold {self._sizes[name]} values per sample, got {size}")
        if wanted.shape[1:] != (rows, width):
            raise ValueError(f"wanted must have shape [B, {rows}, {width}], got {tuple(wanted.shape)}")
        steps = (wanted - state[:, None]) / self.step_scale
        out = self.network(torch.cat((ego, flat, state, steps.flatten(1)), -1))
        return out.unflatten(-1, (rows, self.config["action_dim"]))

    def read(self, ego: Tensor, tokens: Tensor, trajectory: Tensor) -> Tensor:
        """Actions [B, n, A] (normalised) of the first rows behind the history of plans [B, H, D]."""
        state, wanted, _, _ = self._split(trajectory, None)
        return self(ego, tokens, state, wanted)

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the actions.

        Args:
            batch: trajectory [B, H, S + A], mask [B, H], ego [B, E], tokens [B, K, F], optionally weight [B].
            generator: source of the noise on the wanted states.

        Raises:
            ValueError: a missing key or a shape that does not fit.
        """
        missing = [name for name in ("trajectory", "mask", "ego", "tokens") if name not in batch]
        if missing:
            raise ValueError(f"the batch lacks {', '.join(missing)}; it has {', '.join(sorted(batch))}")
        state, wanted, actions, present = self._split(batch["trajectory"], batch["mask"])
        if self.config["state_noise"]:
            wanted = wanted + self.config["state_noise"] * noise.randn(wanted.shape, generator, like=wanted)
        output = self(batch["ego"], batch["tokens"], state, wanted)
        # Rows behind the end of an episode hold no state that was reached: such samples do not count.
        weight = present.all(1).to(output.dtype)
        if "weight" in batch:
            weight = weight * batch["weight"]
        error = F.mse_loss(output.float(), actions.float(), reduction="none").mean((1, 2))
        loss = (error * weight).mean()
        return {"loss": loss, "error": loss.detach()}

    def _split(self, trajectory: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Current state [B, S], wanted states [B, n, S], actions [B, n, A], their mask [B, n]."""
        config, width = self.config, self._sizes["state"]
        start, stop = config["history"], config["history"] + config["rows"]
        if trajectory.ndim != 3 or trajectory.shape[1] < stop or trajectory.shape[2] != width + config["action_dim"]:
            raise ValueError(
                f"trajectory must have shape [B, H >= {stop}, {width + config['action_dim']}], "
                f"got {tuple(trajectory.shape)}"
            )
        rows = trajectory[:, start:stop]
        present = torch.ones_like(rows[..., 0], dtype=torch.bool) if mask is None else mask[:, start:stop].bool()
        return trajectory[:, start - 1, :width], rows[..., :width], rows[..., width:], present

"""Critics that rank plans: how much return and how much cost lies ahead of a state, or of a state and a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from diffdecide.nets.mlp import check_sizes
from diffdecide.nets.object_tokens import ObjectTokens


@dataclass(frozen=True)
class ValueEstimate:
    """Discounted sums ahead, in the units of the data.

    Attributes:
        value: [B] return-to-go.
        cost: [B] cost-to-go, never negative.
    """

    value: Tensor
    cost: Tensor


class StateValue(ModelMixin, ConfigMixin):
    """Predicts discounted return-to-go and cost-to-go of a state under a goal.

    The critic carries the normaliser of its outputs: set it once with `set_normaliser` before training; losses are
    taken in normalised units, `predict` answers in those of the data.

    Args:
        ego_dim, token_dim, goal_dim: E, F, G, see `ObjectTokens`.
        context_dim: C.
        hidden: width of the two-layer head.
        tokens_options: further keyword arguments of `ObjectTokens`.
    """

    @register_to_config
    def __init__(
        self,
        ego_dim: int,
        token_dim: int,
        goal_dim: int,
        context_dim: int = 64,
        hidden: int = 128,
        tokens_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._build(ego_dim, token_dim, goal_dim, context_dim, hidden, tokens_options, extra=0)

    def _build(
        self,
        ego_dim: int,
        token_dim: int,
        goal_dim: int,
        context_dim: int,
        hidden: int,
        tokens_options: dict[str, Any] | None,
        *,
        extra: int,
    ) -> None:
        check_sizes(context_dim=context_dim, hidden=hidden)
        options = {"width": 48, "queries": 2} | (tokens_options or {})
        self.encoder = ObjectTokens(ego_dim, token_dim, goal_dim, context_dim, **options)
        self.head = nn.Sequential(
            nn.SiLU(),
            nn.Linear(context_dim + extra, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 2),
        )
        self.register_buffer("target_mean", torch.zeros(2))
        self.register_buffer("target_scale", torch.ones(2))

    @torch.no_grad()
    def set_normaliser(self, values: Tensor, costs: Tensor) -> None:
        """Take mean and spread of the outputs from training targets `values` [N] and `costs` [N].

        Raises:
            ValueError: no targets, different lengths, or numbers that are not finite.
        """
        if values.shape != costs.shape or values.ndim != 1 or len(values) == 0:
            raise ValueError(
                f"values and costs must be [N] with N > 0, got {tuple(values.shape)}, {tuple(costs.shape)}"
            )
        targets = torch.stack((values, costs), -1).double()
        if not bool(targets.isfinite().all()):
            raise ValueError("values and costs must be finite, they hold NaN or infinity")
        self.target_mean.copy_(targets.mean(0))
        # A constant target (no cost in the whole data set) has no spread: one unit stands in for it.
        spread = targets.std(0, unbiased=False)
        self.target_scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def encode(self, ego: Tensor, tokens: Tensor, token_mask: Tensor, goal: Tensor | None = None) -> Tensor:
        """Context [B, C] of states, see `ObjectTokens.forward` for the arguments."""
        return self.encoder(ego, tokens, token_mask, goal).context

    def forward(self, ego: Tensor, tokens: Tensor, token_mask: Tensor, goal: Tensor | None = None) -> Tensor:
        """Normalised (return-to-go, cost-to-go): [B, 2]."""
        return self.head(self.encode(ego, tokens, token_mask, goal))

    def predict(self, ego: Tensor, tokens: Tensor, token_mask: Tensor, goal: Tensor | None = None) -> ValueEstimate:
        """Estimates in the units of the data."""
        return self._estimate(self(ego, tokens, token_mask, goal))

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error in normalised units.

        Args:
            batch: ego, tokens, token_mask, goal, value_target [B], cost_target [B], optionally weight [B].
            generator: unused, there is no noise in this loss.

        Returns:
            "loss" (differentiable), "value" and "cost" for the record.

        Raises:
            ValueError: a missing key or a shape that does not fit.
        """
        return self._loss(batch, self(*_state(batch)))

    def _loss(self, batch: Mapping[str, Tensor], output: Tensor) -> dict[str, Tensor]:
        targets = torch.stack((_get(batch, "value_target"), _get(batch, "cost_target")), -1)
        if targets.shape != output.shape:
            raise ValueError(f"value_target and cost_target must be [{len(output)}], got {tuple(targets.shape[:-1])}")
        wanted = (targets - self.target_mean) / self.target_scale
        error = F.mse_loss(output.float(), wanted.float(), reduction="none")
        weight = batch.get("weight")
        error = (error if weight is None else error * weight[:, None]).mean(0)
        return {"loss": error.sum(), "value": error[0].detach(), "cost": error[1].detach()}

    def _estimate(self, output: Tensor) -> ValueEstimate:
        plain = output * self.target_scale + self.target_mean
        return ValueEstimate(plain[:, 0], plain[:, 1].clamp_min(0))


class TrajectoryValue(StateValue):
    """Predicts what lies ahead of a state when a given plan is begun: ranks the candidates of one situation.

    Args:
        horizon, dim: H, D of the plans.
        ego_dim, token_dim, goal_dim, context_dim, hidden, tokens_options: as in `StateValue`.
    """

    @register_to_config
    def __init__(
        self,
        horizon: int,
        dim: int,
        ego_dim: int,
        token_dim: int,
        goal_dim: int,
        context_dim: int = 64,
        hidden: int = 256,
        tokens_options: dict[str, Any] | None = None,
    ) -> None:
        super(StateValue, self).__init__()
        check_sizes(horizon=horizon, dim=dim)
        self.plan_shape = (horizon, dim)
        self._build(ego_dim, token_dim, goal_dim, context_dim, hidden, tokens_options, extra=horizon * dim)

    def forward(  # type: ignore[override]
        self,
        trajectory: Tensor,
        ego: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        goal: Tensor | None = None,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Normalised (return-to-go, cost-to-go) [B, 2] of plans [B, H, D]; rows outside `mask` [B, H] do not count."""
        return self.judge(trajectory, self.encode(ego, tokens, token_mask, goal), mask=mask)

    def judge(self, trajectory: Tensor, context: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Normalised outputs [B, 2] for plans [B, H, D] under an encoded context [B, C] or [1, C].

        Differentiable in the plans: `value_guide(lambda plan: critic.judge(plan, context)[:, 0])` is a guide.

        Raises:
            ValueError: a shape that does not fit.
        """
        rows = len(trajectory)
        if trajectory.shape[1:] != self.plan_shape:
            raise ValueError(f"trajectory must be [B, {self.plan_shape}], got {tuple(trajectory.shape)}")
        if len(context) not in (1, rows):
            raise ValueError(f"context must have {rows} rows or one, got {len(context)}")
        if mask is not None:
            trajectory = trajectory * mask[..., None]
        return self.head(torch.cat((context.expand(rows, -1), trajectory.flatten(1)), -1))

    def predict(  # type: ignore[override]
        self, trajectory: Tensor, ego: Tensor, tokens: Tensor, token_mask: Tensor, goal: Tensor | None = None
    ) -> ValueEstimate:
        """Estimates in the units of the data; a single state serves all plans [B, H, D]."""
        return self._estimate(self.judge(trajectory, self.encode(ego, tokens, token_mask, goal)))

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """As `StateValue.loss`, on a batch that holds trajectory [B, H, D] and optionally mask [B, H] as well."""
        return self._loss(batch, self(_get(batch, "trajectory"), *_state(batch), mask=batch.get("mask")))


def _state(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    return _get(batch, "ego"), _get(batch, "tokens"), _get(batch, "token_mask"), batch.get("goal")


def _get(batch: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in batch:
        raise ValueError(f"the batch lacks {key!r}; it has {', '.join(sorted(batch))}")
    return batch[key]

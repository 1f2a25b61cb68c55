"""The distribution of discounted cost, by quantiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from safety.critics.base import Critic, CriticConfig

# Width of the quadratic part, in normalised units: a wide one turns quantiles into expectiles.
HUBER = 0.02


class QuantileCostCritic(Critic):
    """Quantile regression of the discounted cost (W. Dabney et al., "Distributional RL with quantile regression", 2018,
    eq. 10); its risk is CVaR at `config.cvar`, the mean of the worst share.
    """

    kind: ClassVar[str] = "quantile"
    levels: Tensor

    def __init__(self, config: CriticConfig, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        count = config.quantiles
        self.register_buffer("levels", (torch.arange(count) + 0.5) / count, persistent=False)

    def _width(self) -> int:
        return self.config.quantiles

    def quantiles(self, observation: Tensor, action: Tensor | None = None) -> Tensor:
        """Quantiles [B, Q] at `levels`, sorted, averaged over the ensemble; of the state's value without an action."""
        values = self.state_values(observation) if action is None else self.action_values(observation, action)
        return values.sort(-1).values.mean(0)

    def cvar(self, observation: Tensor, action: Tensor | None = None, *, share: float) -> Tensor:
        """Mean [B] of the worst `share` in (0, 1] of the distribution, the most pessimistic member.

        Raises:
            ValueError: share outside (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}")
        values = self.state_values(observation) if action is None else self.action_values(observation, action)
        return self._tail(values, share)

    def _tail(self, values: Tensor, share: float) -> Tensor:
        count = self.config.quantiles
        # Each quantile stands for 1 / Q of the mass; the share may cut one.
        weight = (share * count - torch.arange(count, device=values.device)).clamp(0, 1)
        worst = values.sort(-1, descending=True).values
        return ((worst * weight).sum(-1) / weight.sum()).amax(0)

    def _risk(self, values: Tensor) -> Tensor:
        return self._tail(values, self.config.cvar)

    def _loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        observation, action, following, cost, terminal = self._columns(batch)
        with torch.no_grad():
            ahead = self.state_values(following, target=True).clamp_min(0)  # [E, B, Q]
            wanted = (cost[:, None] + self.config.gamma * (1 - terminal)[:, None] * ahead) / self.output_scale
        of_action = self._regression(self.action_values(observation, action) / self.output_scale, wanted)
        of_state = self._regression(self.state_values(observation) / self.output_scale, wanted)
        return {"loss": of_action + of_state, "action_error": of_action.detach(), "state_error": of_state.detach()}

    def _regression(self, values: Tensor, wanted: Tensor) -> Tensor:
        error = wanted[..., None, :] - values[..., :, None]  # [E, B, Q of the prediction, Q of the target]
        size = error.abs()
        huber = torch.where(size <= HUBER, 0.5 * error.square() / HUBER, size - 0.5 * HUBER)
        side = (self.levels[:, None] - (error.detach() < 0).float()).abs()
        return (side * huber).mean(-1).sum(-1).mean()

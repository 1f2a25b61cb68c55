"""Expected discounted cost of the data's policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from safety.critics.base import Critic


class ExpectedCostCritic(Critic):
    """Q(s, a) = c + gamma V(s'), V(s) = c + gamma V(s'), both by regression on the same target (TD(0)).

    The state value needs no successor's action, so the last step before a time-out is used like any other.
    """

    kind: ClassVar[str] = "expected"

    def _risk(self, values: Tensor) -> Tensor:
        return values[..., 0].amax(0)

    def _loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        observation, action, following, cost, terminal = self._columns(batch)
        with torch.no_grad():
            ahead = self.state_values(following, target=True)[..., 0].clamp_min(0)  # [E, B]
            wanted = (cost + self.config.gamma * (1 - terminal) * ahead) / self.output_scale
        of_action = self.action_values(observation, action)[..., 0] / self.output_scale
        of_state = self.state_values(observation)[..., 0] / self.output_scale
        by_action, by_state = F.mse_loss(of_action, wanted), F.mse_loss(of_state, wanted)
        return {
            "loss": by_action + by_state,
            "action_error": by_action.detach(),
            "state_error": by_state.detach(),
            "mean_value": of_state.detach().mean() * self.output_scale,
        }

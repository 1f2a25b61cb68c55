"""Can all constraints be kept for ever from here? The Hamilton-Jacobi value, learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from safety.critics.base import Critic


class FeasibilityCritic(Critic):
    """The smallest constraint value on the way ahead under the best actions that the data supports.

    With h the continuous constraint value (clearance in metres, >= 0 allowed) of the state that a step leads to:
    Q(s, a) = (1 - gamma) h(s') + gamma min(h(s'), V(s')) (the discounted safety Bellman equation; J. Fisac et al.,
    "Bridging Hamilton-Jacobi safety analysis and reinforcement learning", 2019, eq. 7), V the upper expectile of Q over
    the data's actions (FISOR; Y. Zheng et al., 2024). Where a data set has only the binary cost, h is +1 without cost
    and -1 with it. `risk` is -Q: negative is safe.
    """

    kind: ClassVar[str] = "feasibility"
    needs: ClassVar[str] = "constraint"

    def _set_output_scale(self, costs: Tensor | None) -> None:
        self.output_scale.fill_(self.config.reach)

    def _risk(self, values: Tensor) -> Tensor:
        return -values[..., 0].amin(0)

    def _loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        observation, action, following, constraint, terminal = self._columns(batch)
        config = self.config
        here = constraint.clamp(-config.reach, config.reach)
        with torch.no_grad():
            ahead = torch.minimum(here, self.state_values(following, target=True)[..., 0])
            target = (1 - config.gamma) * here + config.gamma * ahead
            wanted = torch.where(terminal > 0, here, target)
        of_action = self.action_values(observation, action)[..., 0]
        by_action = ((of_action - wanted) / config.reach).square().mean()
        error = (of_action.detach() - self.state_values(observation)[..., 0]) / config.reach
        side = torch.where(error > 0, config.expectile, 1 - config.expectile)
        by_state = (side * error.square()).mean()
        return {
            "loss": by_action + by_state,
            "action_error": by_action.detach(),
            "state_error": by_state.detach(),
            "unsafe_share": (of_action.detach() < 0).float().mean(),
        }

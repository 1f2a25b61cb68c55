"""Projection of plans: correcting where a plan goes by correcting its actions, through the linearised dynamics.

A plan that comes too close is moved to the nearest one (in motor commands) whose worst point keeps the margin, by the
closed-form projection onto the linearised constraint; repeated, since both dynamics and constraints are curved
(cyclic projections, Bregman 1965). The constraint objects are those of `safety.constraints`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffdecide.plan import PlanRows
from safety.constraints import Ball
from safety.dynamics import Dynamics


class PlanProjection:
    """Maps clean estimates [C, H, 2] (motor commands in [-1, 1]) to ones that keep clear of `balls`.

    Args:
        dynamics: of the agent.
        rows: how plan rows cover control steps.
        state: [6] where the plan starts.
        balls: what to keep clear of, with the margins they carry.
        iterations: linearise and correct this often.
        stride: positions are checked at every `stride`-th control step, and on the segments between them.
        relax: over-correction, so that the curved constraint is met and not only its tangent.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        rows: PlanRows,
        state: Tensor,
        balls: Sequence[Ball],
        *,
        iterations: int = 2,
        stride: int = 3,
        relax: float = 1.1,
    ) -> None:
        self.dynamics, self.rows, self.state = dynamics, rows, state
        self.balls = balls
        self.iterations, self.stride, self.relax = iterations, stride, relax

    def clearance(self, commands: Tensor) -> Tensor:
        """Smallest clearance [C] beyond the margins over the plan and all constraints, differentiable."""
        actions = self.dynamics.command(self.rows.expand(commands))
        path = self.dynamics.rollout(self.state, actions)[..., self.stride - 1 :: self.stride, :2]
        start, end = path[:, :-1], path[:, 1:]
        values = [ball.segment_value(start, end).amin(-1) for ball in self.balls]
        return torch.stack(values, -1).amin(-1)

    def __call__(self, commands: Tensor) -> Tensor:
        """The corrected clean estimates; those that keep the margins are returned as they are."""
        if not self.balls:
            return commands
        for _ in range(self.iterations):
            with torch.enable_grad():
                leaf = commands.detach().requires_grad_(True)
                value = self.clearance(leaf)
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            violated = value < 0
            if not bool(violated.any()):
                return commands
            squared = gradient.square().sum((1, 2)).clamp_min(1e-8)
            length = torch.where(violated, -self.relax * value / squared, torch.zeros_like(value))
            # A plan that actions hardly move (the agent stands inside a margin) must not be blown up by its tangent.
            step = length[:, None, None] * gradient
            step = step * (1.0 / step.abs().amax((1, 2), keepdim=True).clamp_min(1.0))
            commands = (commands + step).clamp(-1, 1).detach()
        return commands

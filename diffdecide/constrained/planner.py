"""The receding-horizon planner with its candidates drawn by a method of constrained sampling.

Ranking, replanning and everything else stay the planner's own; only how candidates come about changes, so that methods
are compared on nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffdecide.constrained.plan_constraints import MotionConstraints, violation
from diffdecide.constrained.sampling import sample_constrained
from diffdecide.constrained.steering import Method, Unconstrained
from diffdecide.planner import Planner
from diffdecide.schedules import add_noise, alphas_cumprod, to_clean
from safety.controllers.objective import Objective
from safety.scene import Scene


@dataclass(frozen=True)
class ProposalFigures:
    """What one batch of candidates was like.

    Attributes:
        violation: m, mean depth of the candidates' worst violation of the plan's margin.
        violating: share of candidates that violate it by more than 1 mm.
        distance: root mean square error of the model's own denoising of the candidates, noised to a tenth of the
            schedule: how far they lie from what the model knows as data, in normalised units.
        milliseconds: of drawing them.
    """

    violation: float
    violating: float
    distance: float
    milliseconds: float


class ConstrainedPlanner(Planner):
    """A `Planner` whose candidates come from `method`; `figures` collects what they were like, plan by plan."""

    method: Method = Unconstrained()
    figures: list[ProposalFigures]
    _held: MotionConstraints | None = None  # what the last drawing was held to

    @classmethod
    def with_method(cls, folder: str | Path, method: Method, **overrides: Any) -> ConstrainedPlanner:
        """The planner in `folder` with another way to draw candidates, and no other projection.

        Raises:
            ValueError: as `Planner.from_pretrained`.
        """
        base = Planner.from_pretrained(folder, **({"project": False, "clearance_guidance": 0.0} | overrides))
        planner = cls(base.model, base.config, base.statistics, guides=base.guides, critic=base.critic)
        planner.method = method
        return planner

    def reset(self, *, seed: int) -> None:
        """Forget the last episode and its figures."""
        super().reset(seed=seed)
        self.figures = []

    def _drawer(
        self, scene: Scene, objective: Objective, keep: float, context: Tensor, batch: dict[str, Tensor]
    ) -> Callable[..., Tensor]:
        config = self.config
        balls = self._balls(scene, objective, keep)
        state = torch.from_numpy(scene.state).float()
        self._held = MotionConstraints(self.dynamics, config.rows, state, balls) if balls else None
        options: dict[str, Any] = {
            "generator": self._generator,
            "method": self.method if self._held is not None else Unconstrained(),
            "constraints": self._held,
            "context": context,
            "steps": config.steps,
            "scheduler": replace(self.model.schedule, scheduler=config.scheduler),
            "temperature": config.temperature,
        }
        return lambda shape, **start: sample_constrained(self.model, shape, **options, **start).sample

    def _propose(
        self,
        scene: Scene,
        objective: Objective,
        keep: float,
        context: Tensor,
        batch: dict[str, Tensor],
        elapsed: int | None,
    ) -> Tensor:
        began = time.perf_counter()
        candidates = super()._propose(scene, objective, keep, context, batch, elapsed)
        drawn = candidates[: self.config.candidates]
        self._record(drawn, self._held, context, 1e3 * (time.perf_counter() - began))
        return candidates

    def _record(self, plans: Tensor, held: MotionConstraints | None, context: Tensor, milliseconds: float) -> None:
        depth = plans.new_zeros(len(plans)) if held is None else violation(held, plans)
        self.figures.append(
            ProposalFigures(
                violation=float(depth.mean()),
                violating=float((depth > 1e-3).float().mean()),
                distance=denoising_distance(self.model, plans, context),
                milliseconds=milliseconds,
            )
        )


@torch.no_grad()
def denoising_distance(model: Any, plans: Tensor, context: Tensor | None, *, share: float = 0.1) -> float:
    """Root mean square of (denoised - plan) for plans [B, H, D] noised to `share` of the schedule, noise fixed."""
    schedule = model.schedule
    time_index = max(0, int(share * schedule.train_steps) - 1)
    kept = float(alphas_cumprod(schedule)[time_index])
    alpha, sigma = kept**0.5, (1 - kept) ** 0.5
    noise = torch.randn(plans.shape, generator=torch.Generator().manual_seed(0)).to(plans)
    x = add_noise(plans, noise, alpha, sigma)
    output = model.denoise(x, torch.tensor([time_index], device=plans.device), context)
    return float((to_clean(schedule.prediction, output, x, alpha, sigma) - plans).square().mean().sqrt())


def mean_figures(figures: Sequence[ProposalFigures]) -> dict[str, float]:
    """Means over plans.

    Raises:
        ValueError: no figures.
    """
    if not figures:
        raise ValueError("expected the figures of at least one plan, got none")
    names = ProposalFigures.__dataclass_fields__
    return {name: sum(getattr(figure, name) for figure in figures) / len(figures) for name in names}

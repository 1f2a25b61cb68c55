"""Projection in the sampling loop: of every noisy iterate, of the clean estimates, or of the final plan only."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffdecide.constrained.plan_constraints import PlanConstraints
from diffdecide.constrained.projection import project_plans
from diffdecide.constrained.steering import Demand, Moment, Steering

PLACES = ("iterates", "clean", "final")


@dataclass(frozen=True, kw_only=True)
class Projected:
    """Project plans onto the constraints during sampling.

    - "iterates": every noisy iterate (J. K. Christopher, S. Baek, F. Fioretto, "Constrained synthesis with projected
      diffusion models", NeurIPS 2024, alg. 1), and the last estimate. The default of this package.
    - "clean": every clean estimate (the estimate is what will become the plan, so the correction means the same at
      every noise level; DiRecT).
    - "final": the finished sample only.

    All three end with a projection, so what can be kept is kept in the returned plan.

    Attributes:
        place: one of `PLACES`.
        iterations: linearisations per projection, and in the last one.
        last_iterations: the same for the finished sample.
        below: noise level (sigma) below which "iterates" and "clean" act; above, plans are noise.
    """

    place: str = "iterates"
    iterations: int = 1
    last_iterations: int = 6
    below: float = 1.0

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"place must be one of {', '.join(PLACES)}, got {self.place!r}")
        if self.iterations < 1 or self.last_iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations=} and {self.last_iterations=}")
        if not 0 < self.below <= 1:
            raise ValueError(f"below must lie in (0, 1], got {self.below=}")

    @property
    def name(self) -> str:
        return f"projected-{self.place}"

    def begin(self, demand: Demand) -> Steering:
        return _Run(self, demand.require_constraints(self.name), demand.clip)


class _Run(Steering):
    def __init__(self, settings: Projected, constraints: PlanConstraints, clip: float | None) -> None:
        self.settings, self.constraints, self.clip = settings, constraints, clip

    def iterate(self, x: Tensor, moment: Moment) -> Tensor:
        if self.settings.place != "iterates" or moment.sigma > self.settings.below:
            return x
        # Noise reaches beyond the range of plans: no box here.
        return project_plans(x, self.constraints, iterations=self.settings.iterations).plans

    def clean(self, clean: Tensor, x: Tensor, moment: Moment) -> Tensor:
        if self.settings.place != "clean" or moment.sigma > self.settings.below or moment.last:
            return clean
        return project_plans(clean, self.constraints, iterations=self.settings.iterations, clip=self.clip).plans

    def final(self, clean: Tensor) -> Tensor:
        return project_plans(
            clean, self.constraints, iterations=self.settings.last_iterations, clip=self.clip
        ).plans  # fmt: skip

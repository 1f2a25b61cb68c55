"""Methods that need only a differentiable cost of the plan: critic-gradient guidance and the augmented Lagrangian.

Both measure a violation by the distance to the linearised limit, (cost - limit) / |gradient|, which has the unit of the
plan whatever the unit of the cost: no strength has to be tuned per data set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecide.constrained.steering import Demand, Moment, PlanCost, Steering, gradient_of


def _direction(cost: PlanCost, limit: float, plans: Tensor) -> tuple[Tensor, Tensor]:
    """(distance [B, 1, 1] to the linearised limit, positive beyond it; unit gradient [B, H, D])."""
    value, gradient = gradient_of(cost, plans)
    length = gradient.square().sum((1, 2)).sqrt()
    flat = length < 1e-9
    distance = torch.where(flat, torch.zeros_like(value), (value - limit) / length.clamp_min(1e-9))
    return distance[:, None, None], gradient / length.clamp_min(1e-9)[:, None, None]


@dataclass(frozen=True, kw_only=True)
class CostGuidance:
    """Gradient guidance away from cost (P. Dhariwal, A. Nichol, 2021; on the clean estimate).

    The rule: clean -= min(scale * sigma * sqrt(H D), (cost - limit) / |g|) * g / |g|. The first length moves every
    number of the plan by `scale * sigma` (root mean square), what the noise of the step is; the second is Polyak's step
    (B. Polyak, 1969), which ends at the linearised limit: nothing is moved that keeps it, and nothing farther than
    needed.

    Attributes:
        scale: bound on the move as a share of the noise level.
        inner: gradient steps per denoising step.
        floor: noise level that the bound does not fall below: the last steps may still correct a little.
    """

    scale: float = 0.5
    inner: int = 1
    floor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale must be finite and positive, got {self.scale=}")
        if self.inner < 1:
            raise ValueError(f"inner must be at least 1, got {self.inner=}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor must lie in [0, 1], got {self.floor=}")

    @property
    def name(self) -> str:
        return "cost-guidance"

    def begin(self, demand: Demand) -> Steering:
        return _Guided(self, demand.plan_cost(self.name), demand.limit)


class _Guided(Steering):
    def __init__(self, settings: CostGuidance, cost: PlanCost, limit: float) -> None:
        self.settings, self.cost, self.limit = settings, cost, limit

    def clean(self, clean: Tensor, x: Tensor, moment: Moment) -> Tensor:
        bound = self.settings.scale * max(moment.sigma, self.settings.floor) * clean[0].numel() ** 0.5
        for _ in range(self.settings.inner):
            distance, unit = _direction(self.cost, self.limit, clean)
            clean = clean - distance.clamp(0, bound) * unit
        return clean


@dataclass(frozen=True, kw_only=True)
class PrimalDual:
    """Augmented Lagrangian on the plan's cost, its multiplier carried from one denoising step to the next.

    Each clean estimate z is replaced by the minimiser of |y - z|^2 / 2 + L(y), L the augmented Lagrangian of
    cost(y) <= limit (M. Hestenes, 1969; M. Powell, 1969), linearised around the last y: y = z - (lam + rho d) / (1 +
    rho) g / |g|, d the distance to the linearised limit; then lam = max(0, lam + rho d(y)). For a linear cost it
    converges to the projection, with the factor 1 / (1 + rho) per step.

    Attributes:
        rho: penalty; a pure number, since cost is measured as distance.
        inner: primal and dual steps per denoising step.
        last: the same for the finished sample.
    """

    rho: float = 4.0
    inner: int = 2
    last: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.rho < float("inf"):
            raise ValueError(f"rho must be finite and positive, got {self.rho=}")
        if self.inner < 1 or self.last < 0:
            raise ValueError(f"need inner >= 1 and last >= 0, got {self.inner=} and {self.last=}")

    @property
    def name(self) -> str:
        return "primal-dual"

    def begin(self, demand: Demand) -> Steering:
        return _Lagrangian(self, demand.plan_cost(self.name), demand.limit, demand.clip)


class _Lagrangian(Steering):
    def __init__(self, settings: PrimalDual, cost: PlanCost, limit: float, clip: float | None) -> None:
        self.settings, self.cost, self.limit, self.clip = settings, cost, limit, clip
        self.multiplier: Tensor | None = None  # [B, 1, 1], in plan units

    def clean(self, clean: Tensor, x: Tensor, moment: Moment) -> Tensor:
        return self._solve(clean, self.settings.inner)

    def final(self, clean: Tensor) -> Tensor:
        # What comes in is the last corrected estimate: only what is still missing is added.
        self.multiplier = None
        return self._solve(clean, self.settings.last) if self.settings.last else clean

    def _solve(self, start: Tensor, steps: int) -> Tensor:
        rho = self.settings.rho
        if self.multiplier is None:
            self.multiplier = start.new_zeros(len(start), 1, 1)
        point = start
        for _ in range(steps):
            distance, unit = _direction(self.cost, self.limit, point)
            # Distance of the linearised limit from `start`, along the current direction.
            ahead = distance + ((start - point) * unit).sum((1, 2), keepdim=True)
            moved = unit.square().sum((1, 2), keepdim=True) > 0.5
            length = ((self.multiplier + rho * ahead) / (1 + rho)).clamp_min(0)
            point = torch.where(moved, start - length * unit, point)
            if self.clip is not None:
                point = point.clamp(-self.clip, self.clip)
            left = torch.where(moved, ahead - length, -self.multiplier / rho)
            self.multiplier = (self.multiplier + rho * left).clamp_min(0)
        return point

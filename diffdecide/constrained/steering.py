"""What a method may do in one sampling run, and the model that lets it do so inside `diffdecide.sampling.sample`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from diffdecide.constrained.plan_constraints import PlanConstraints, total_violation
from diffdecide.guidance import combine
from diffdecide.schedules import ScheduleConfig, alphas_cumprod, timesteps, to_clean

PlanCost = Callable[[Tensor], Tensor]  # clean plans [B, H, D] -> cost [B] in cost units, differentiable


@dataclass(frozen=True)
class Moment:
    """Where in the sampling run a hook is called.

    Attributes:
        index: 0 at the first step taken.
        t: diffusion time.
        alpha, sigma: x_t = alpha x_0 + sigma eps.
        left: share of the schedule that is left, 1 at pure noise, 0 at the last step.
        last: this is the last step.
    """

    index: int
    t: int
    alpha: float
    sigma: float
    left: float
    last: bool


class Steering:
    """One sampling run of a method; the base class leaves everything as it is. One object per run: it has memory."""

    def iterate(self, x: Tensor, moment: Moment) -> Tensor:
        """The noisy iterate [B, H, D] before it enters the network."""
        return x

    def clean(self, clean: Tensor, x: Tensor, moment: Moment) -> Tensor:
        """The clean estimate [B, H, D] before the scheduler uses it."""
        return clean

    def final(self, clean: Tensor) -> Tensor:
        """The sample [B, H, D]; the last word."""
        return clean


@dataclass(frozen=True)
class Demand:
    """What plans are held to in one run.

    Attributes:
        constraints: what is allowed, or None.
        cost: cost of a plan, or None; with constraints only, their mean violation stands in for it.
        limit: of the cost, in its units.
        clip: plans lie in [-clip, clip]; None for no such bound.
    """

    constraints: PlanConstraints | None
    cost: PlanCost | None = None
    limit: float = 0.0
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.limit < float("inf"):
            raise ValueError(f"the cost limit must be a finite number >= 0, got {self.limit}")

    def require_constraints(self, method: str) -> PlanConstraints:
        """The constraints; ValueError naming the method where there are none."""
        if self.constraints is None:
            raise ValueError(f"method {method!r} needs constraints, got none")
        return self.constraints

    def plan_cost(self, method: str) -> PlanCost:
        """The cost; ValueError naming the method where there is neither a cost nor constraints."""
        if self.cost is not None:
            return self.cost
        constraints = self.constraints
        if constraints is None:
            raise ValueError(f"method {method!r} needs a cost or constraints, got neither")
        return lambda plans: total_violation(constraints, plans)


class Method(Protocol):
    """A way to sample under constraints: a frozen dataclass of settings."""

    @property
    def name(self) -> str: ...

    def begin(self, demand: Demand) -> Steering:
        """Steering for one sampling run.

        Raises:
            ValueError: the method needs something that `demand` does not have.
        """
        ...


class Unconstrained:
    """Plain sampling, the row that every method is compared with."""

    name = "none"

    def begin(self, demand: Demand) -> Steering:
        return Steering()


class SteeredModel:
    """A model as `sample` takes it, with a method's hooks inside its `denoise`.

    The sampling loop has no hook for noisy iterates, so the correction of one is written into the tensor that the loop
    passes in; the scheduler then steps from the corrected iterate. Build one per sampling run.
    """

    def __init__(
        self,
        model: Any,
        steering: Steering,
        *,
        schedule: ScheduleConfig,
        steps: int,
        clip: float | None,
        uncond_context: Tensor | None,
        scale: float | Callable[[Moment], float],
        context_at: Callable[[Moment], Tensor | None] | None = None,
    ) -> None:
        self.schedule = schedule
        self._denoise = model.denoise if hasattr(model, "denoise") else model
        self._steering, self._clip = steering, clip
        self._uncond, self._scale, self._context_at = uncond_context, scale, context_at
        self._kept = alphas_cumprod(schedule)
        self._last = timesteps(schedule, steps)[-1]
        self._index = -1
        self._t = -1
        self.calls = 0

    def denoise(self, x: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
        """The prediction for x [B, H, D] at t [1], corrected by the method."""
        time = int(t.reshape(-1)[0])
        if time != self._t:
            self._t, self._index = time, self._index + 1
        share = float(self._kept[time])
        left = (time - self._last) / max(1, self.schedule.train_steps - 1 - self._last)
        moment = Moment(self._index, time, share**0.5, (1 - share) ** 0.5, left, time == self._last)
        corrected = self._steering.iterate(x, moment)
        if corrected is not x:
            x.copy_(corrected)
        if self._context_at is not None:
            context = self._context_at(moment)
        clean = self._estimate(x, t, context, moment)
        scale = self._scale(moment) if callable(self._scale) else self._scale
        if scale != 1.0:
            clean = combine(clean, self._estimate(x, t, self._uncond, moment), scale)
        if self._clip is not None:
            clean = clean.clamp(-self._clip, self._clip)
        clean = self._steering.clean(clean, x, moment)
        return from_clean(self.schedule.prediction, clean, x, moment.alpha, moment.sigma)

    def _estimate(self, x: Tensor, t: Tensor, context: Tensor | None, moment: Moment) -> Tensor:
        self.calls += 1
        output = self._denoise(x, t, context)
        return to_clean(self.schedule.prediction, output, x, moment.alpha, moment.sigma)


def from_clean(prediction: str, clean: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """The network output that stands for a clean estimate: the inverse of `diffdecide.schedules.to_clean`."""
    if prediction == "sample":
        return clean
    noise = (x - alpha * clean) / max(sigma, 1e-12)
    return noise if prediction == "epsilon" else alpha * noise - sigma * clean


def gradient_of(cost: PlanCost, plans: Tensor) -> tuple[Tensor, Tensor]:
    """(cost [B], gradient [B, H, D]); gradients that are not finite count as zero.

    Raises:
        ValueError: the cost is not one number per plan, or does not depend on the plan.
    """
    with torch.enable_grad():
        leaf = plans.detach().requires_grad_(True)
        value = cost(leaf)
        if value.shape != plans.shape[:1]:
            raise ValueError(f"a plan cost must return shape [{len(plans)}], got {tuple(value.shape)}")
        if not value.requires_grad:
            raise ValueError("a plan cost must be differentiable in the plan; it has no gradient")
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    finite = gradient.isfinite().flatten(1).all(1)[:, None, None]
    return value.detach(), torch.where(finite, gradient, torch.zeros_like(gradient))

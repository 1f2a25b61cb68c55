"""Steering the clean estimate: classifier-free, by a value, away from cost.

The rule, for an objective J(clean, t) to be increased and a step at noise level sigma (x_t = alpha x_0 + sigma eps):

- normalised:  clean += scale * sigma * g / rms(g)       (g the gradient of J, rms over a sample's H x D values)
- plain:       clean += scale * sigma**2 * g

The normalised rule moves every sample by the same root mean square, `scale * sigma`, whatever the unit of J: scales
carry over between tasks. The plain rule is what Bayes asks for where the plans have unit variance, since the variance
of x_0 given x_t is then sigma**2, and p(x) exp(scale J) is sampled exactly for a Gaussian p and a linear J (the
approximation of Dhariwal and Nichol 2021, carried from the iterate to the clean estimate). Gradients go through the
objective, never through the denoiser: a guide costs one backward pass of the objective alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Objective = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Guide:
    """An objective with its strength.

    Attributes:
        objective: (clean [B, H, D], t) -> [B], to be increased.
        scale: strength, see the rule above.
        normalise: which of the two rules.
        start, stop: diffusion times in [start, stop) at which the guide acts.
    """

    objective: Objective
    scale: float = 0.1
    normalise: bool = True
    start: int = 0
    stop: int = 1_000_000

    def __post_init__(self) -> None:
        if not callable(self.objective):
            raise ValueError(f"objective must be callable, got {type(self.objective).__name__}")
        if not abs(self.scale) < float("inf"):
            raise ValueError(f"scale must be finite, got {self.scale=}")
        if not 0 <= self.start < self.stop:
            raise ValueError(f"need 0 <= start < stop, got {self.start=} and {self.stop=}")


def combine(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022) on clean estimates: uncond + scale (cond - uncond).

    The clean estimate is affine in the predicted noise, so this equals the combination of noise predictions.
    """
    return torch.lerp(unconditional, conditional, scale)


def value_guide(value: Callable[[Tensor], Tensor], scale: float = 0.1, **options: Any) -> Guide:
    """Classifier guidance towards a higher value of the plan, `value(clean [B, H, D]) -> [B]`."""
    return Guide(lambda clean, t: value(clean), scale, **options)


def cost_guide(
    cost: Callable[[Tensor], Tensor], scale: float = 0.1, *, limit: float | None = None, **options: Any
) -> Guide:
    """Guidance away from `cost(clean [B, H, D]) -> [B]`; with a limit, only samples above it are moved."""

    def objective(clean: Tensor, t: int) -> Tensor:
        return -cost(clean) if limit is None else -(cost(clean) - limit).clamp_min(0)

    return Guide(objective, scale, **options)


def apply_guide(guide: Guide | Objective, clean: Tensor, t: int, sigma: float) -> Tensor:
    """Move the clean estimate [B, H, D] by one guide at diffusion time t with noise level sigma.

    A sample whose gradient is zero or not finite stays where it is: a guide must not destroy a plan.

    Raises:
        ValueError: the objective does not return one number per sample, or does not depend on the plan.
    """
    guide = guide if isinstance(guide, Guide) else Guide(guide)
    if not guide.start <= t < guide.stop or guide.scale == 0:
        return clean
    with torch.enable_grad():
        leaf = clean.detach().requires_grad_(True)
        objective = guide.objective(leaf, t)
        if objective.shape != clean.shape[:1]:
            raise ValueError(f"a guide must return shape [{len(clean)}], got {tuple(objective.shape)}")
        if not objective.requires_grad:
            raise ValueError("a guide must be differentiable in the plan; the objective has no gradient")
        (gradient,) = torch.autograd.grad(objective.sum(), leaf)
    finite = gradient.isfinite().flatten(1).all(1)[:, None, None]
    gradient = torch.where(finite, gradient, torch.zeros_like(gradient))
    if not guide.normalise:
        return clean + guide.scale * sigma**2 * gradient
    rms = gradient.square().mean((1, 2), keepdim=True).sqrt()
    return clean + guide.scale * sigma * gradient / rms.clamp_min(1e-12)

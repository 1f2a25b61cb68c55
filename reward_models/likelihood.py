"""Rewards from one diffusion model: log-likelihood, conditional entropy, and a class-conditional discriminator.

The likelihood is the information-theoretic one (Kong, Brekelmans and Ver Steeg 2023, "Information-Theoretic
Diffusion", eq. 8), exact for a perfect denoiser: with z = sqrt(g) x + eps and mmse(x, g) = E |x - x̂(z)|²,

    -log p(x) = D/2 log(2 pi e) - 1/2 ∫ [D / (1 + g) - mmse(x, g)] dg,   g from 0 to infinity.

"Diffusion Reward" (Huang et al. 2023) takes minus the conditional entropy of what a model trained on good behaviour
expects; "Your Diffusion Model is Secretly a Zero-Shot Classifier" (Li et al. 2023) compares denoising errors of
classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecide import noise
from diffdecide.sampling import Denoises, sample
from diffdecide.schedules import add_noise, alphas_cumprod, to_clean


@dataclass(frozen=True, kw_only=True)
class Quadrature:
    """At which noise levels the denoiser is asked.

    Attributes:
        times: K noise levels, evenly spaced in log signal-to-noise ratio.
        samples: noises per level, rounded up to an even number.
        low, high: range of the signal-to-noise ratio g; the schedule's own range bounds it. Below `low` the integrand
            is a constant, beyond `high` it falls with 1 / g².
    """

    times: int = 24
    samples: int = 2
    low: float = 1e-3
    high: float = 1e3

    def __post_init__(self) -> None:
        if self.times < 2 or self.samples < 1:
            raise ValueError(f"Quadrature needs times >= 2 and samples >= 1, got {self.times=} and {self.samples=}")
        if not 0 < self.low < self.high:
            raise ValueError(f"Quadrature needs 0 < low < high, got {self.low=} and {self.high=}")


@dataclass(frozen=True)
class DenoisingErrors:
    """Squared errors of clean estimates.

    Attributes:
        snr: [K] signal-to-noise ratios, rising.
        error: [K, B] summed over a plan's values, mean over the noises.
    """

    snr: Tensor
    error: Tensor


def denoising_errors(
    model: Denoises,
    plans: Tensor,
    context: Tensor,
    *,
    generator: torch.Generator,
    quadrature: Quadrature = Quadrature(),
) -> DenoisingErrors:
    """mmse(x, g) of plans [B, H, D] under context [B, C] or [1, C], differentiable in the plans.

    Calls with generators of the same state share their noises: differences between classes have far less variance
    than each likelihood alone.
    """
    if plans.ndim != 3:
        raise ValueError(f"plans must have shape [B, H, D], got {tuple(plans.shape)}")
    kept = alphas_cumprod(model.schedule).double()
    ratios = kept / (1 - kept).clamp_min(1e-12)
    low, high = max(quadrature.low, float(ratios.min())), min(quadrature.high, float(ratios.max()))
    wanted = torch.linspace(math.log(low), math.log(high), quadrature.times, dtype=torch.float64)
    times = torch.unique((ratios.log()[None] - wanted[:, None]).abs().argmin(1)).flip(0)
    # Noises come in pairs of opposite sign, which cancels the part of the error that is linear in them.
    half = (-(-quadrature.samples // 2), *plans.shape)
    many = plans.repeat(2 * half[0], 1, 1)
    contexts = context if len(context) == 1 else context.repeat(2 * half[0], 1)
    rows = []
    for t in times.tolist():
        alpha, sigma = float(kept[t]) ** 0.5, float(1 - kept[t]) ** 0.5
        drawn = noise.randn(half, generator, like=plans)
        noisy = add_noise(many, torch.cat([drawn, -drawn]).flatten(0, 1), alpha, sigma)
        output = model.denoise(noisy, torch.full((1,), t, device=plans.device), contexts)
        error = (to_clean(model.schedule.prediction, output, noisy, alpha, sigma) - many).square().sum((1, 2))
        # What the length of the noise adds is known in expectation and, at high signal-to-noise ratios, nearly all of
        # the variance: a control variate.
        ratio = float(kept[t] / (1 - kept[t]))
        excess = drawn.square().sum((2, 3)) - plans[0].numel()
        rows.append((error.view(2, *half[:2]).mean(0) - ratio / (1 + ratio) ** 2 * excess).mean(0))
    return DenoisingErrors(ratios[times].to(plans), torch.stack(rows))


def log_likelihood(
    model: Denoises,
    plans: Tensor,
    context: Tensor,
    *,
    generator: torch.Generator,
    quadrature: Quadrature = Quadrature(),
) -> Tensor:
    """log p(plan | context) in nats [B], for plans [B, H, D]."""
    errors = denoising_errors(model, plans, context, generator=generator, quadrature=quadrature)
    size = plans.shape[1] * plans.shape[2]
    gap = size / (1 + errors.snr[:, None]) - errors.error
    # Below the first level the gap is what it is there; beyond the last it falls with the square of the ratio.
    tails = gap[0] * errors.snr[0] + gap[-1] * errors.snr[-1]
    return -0.5 * size * math.log(2 * math.pi * math.e) + 0.5 * (_integral(errors.snr, gap) + tails)


def conditional_entropy(
    model: Denoises,
    context: Tensor,
    shape: tuple[int, int],
    *,
    generator: torch.Generator,
    plans: int = 16,
    steps: int = 20,
    clip: float | None = 1.0,
    quadrature: Quadrature = Quadrature(),
) -> Tensor:
    """H(plan | context) in nats [B]: minus the mean log-likelihood of the model's own samples.

    Its negative is the reward of Huang et al. 2023: where a model of good behaviour is sure of what follows, the
    situation is a familiar one.

    Args:
        context: [B, C].
        shape: (H, D).
        plans: samples per context.
        clip: of the samples, as in `sampling.sample`.
    """
    rows = context.repeat_interleave(plans, 0)
    drawn = sample(model, (len(rows), *shape), context=rows, generator=generator, steps=steps, clip=clip).sample
    with torch.no_grad():
        likelihood = log_likelihood(model, drawn, rows, generator=generator, quadrature=quadrature)
    return -likelihood.view(len(context), plans).mean(1)


def class_log_ratio(
    model: Denoises,
    plans: Tensor,
    wanted: Tensor,
    other: Tensor,
    *,
    generator: torch.Generator,
    quadrature: Quadrature = Quadrature(),
    other_model: Denoises | None = None,
) -> Tensor:
    """log p(plan | wanted) - log p(plan | other) [B]: the logit of a class-conditional denoiser as discriminator.

    Args:
        wanted, other: contexts [B, C] or [1, C] of the two classes.
        other_model: a second model for the other class, with the same schedule; None: the same model.
    """
    if other_model is not None and other_model.schedule != model.schedule:
        raise ValueError("the two models must share their noise schedule")
    state = generator.get_state()
    ours = denoising_errors(model, plans, wanted, generator=generator, quadrature=quadrature)
    generator.set_state(state)
    theirs = denoising_errors(other_model or model, plans, other, generator=generator, quadrature=quadrature)
    gap = theirs.error - ours.error
    return 0.5 * (_integral(ours.snr, gap) + gap[0] * ours.snr[0] + gap[-1] * ours.snr[-1])


def _integral(snr: Tensor, values: Tensor) -> Tensor:
    """∫ values d snr by the trapezoid rule in log snr: [K], [K, B] -> [B]."""
    scaled = values * snr[:, None]
    step = snr.log().diff()[:, None]
    return (0.5 * (scaled[1:] + scaled[:-1]) * step).sum(0)

"""The one sampling loop. Everything that steers a plan acts on the clean estimate, in a fixed order.

At each step: network -> clean estimate -> classifier-free combination -> clip -> guides -> clip -> inpainting ->
projection -> callback -> scheduler. The result is the clean estimate of the last step, so it satisfies the projection
exactly (correct the clean estimate, enforce feasibility at the end: DiRecT).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from diffdecide.guidance import Guide, apply_guide, combine
from diffdecide.noise import randn
from diffdecide.schedules import ScheduleConfig, add_noise, make_scheduler, noise_levels, timesteps, to_clean

DenoiseFn = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Denoises(Protocol):
    """What `TrajectoryDiffusion` offers to the sampler."""

    schedule: ScheduleConfig

    def denoise(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Inpaint:
    """Values that the plan must keep.

    Attributes:
        values: broadcastable to [B, H, D].
        mask: bool, broadcastable to [B, H, D], True where the value is given.
    """

    values: Tensor
    mask: Tensor


@dataclass(frozen=True)
class StepInfo:
    """What the callback sees after each step.

    Attributes:
        index: 0 for the first step that is taken.
        t: diffusion time of the step.
        x: [B, H, D] the noisy iterate that went into the network.
        raw: [B, H, D] clean estimate before guides, inpainting and projection.
        clean: [B, H, D] clean estimate after them.
    """

    index: int
    t: int
    x: Tensor
    raw: Tensor
    clean: Tensor


@dataclass(frozen=True)
class SampleResult:
    """A finished sample.

    Attributes:
        sample: [B, H, D] the last clean estimate.
        timesteps: diffusion times at which the network was called.
        network_calls: calls of the network, two per step with classifier-free guidance.
        stopped: True if the callback ended the loop early.
    """

    sample: Tensor
    timesteps: tuple[int, ...]
    network_calls: int
    stopped: bool = False


@torch.no_grad()
def sample(
    model: Denoises | DenoiseFn,
    shape: Sequence[int],
    *,
    generator: torch.Generator,
    context: Tensor | None = None,
    uncond_context: Tensor | None = None,
    guidance_scale: float = 1.0,
    guides: Sequence[Guide | Callable[[Tensor, int], Tensor]] = (),
    projection: Callable[[Tensor], Tensor] | None = None,
    project_every_step: bool = True,
    inpaint: Inpaint | None = None,
    temperature: float = 1.0,
    steps: int | None = None,
    scheduler: ScheduleConfig | None = None,
    init: Tensor | None = None,
    init_strength: float = 1 / 3,
    clip: float | None = 1.0,
    callback: Callable[[StepInfo], bool | None] | None = None,
    device: torch.device | str | None = None,
) -> SampleResult:
    """Draw plans from a diffusion model.

    Args:
        model: a `TrajectoryDiffusion`, or a function (x, t, context) -> prediction of the kind that
            `scheduler.prediction` names.
        shape: (B, H, D).
        generator: the only source of randomness.
        context: [B, C], or [1, C] for all candidates of one situation.
        uncond_context: context of the unconditional branch; used where `guidance_scale` is not 1.
        guidance_scale: w in clean = uncond + w (cond - uncond); 1 is plain conditional sampling.
        guides: objectives (clean [B, H, D], t) -> [B] to be increased, plain callables or `Guide`s with a scale.
        projection: clean estimate [B, H, D] -> feasible estimate; its word is the last.
        project_every_step: False projects the final estimate only.
        inpaint: values to be kept.
        temperature: factor on the initial noise and on the noise that DDPM adds (low-temperature sampling,
            Ajay et al. 2023, with 0.5).
        steps: network calls over the whole schedule; None is the model's default.
        scheduler: overrides the model's schedule; training times, betas and prediction must be the model's.
        init: [B or 1, H, D] trajectory to start from, such as the shifted previous plan (warm start).
        init_strength: share of the diffusion time that `init` is noised to, in (0, 1]: the sampler starts at the step
            nearest to it and takes the steps behind.
        clip: clean estimates are kept within [-clip, clip]; None does not clip.
        callback: called after each step; returning True ends the loop with the current clean estimate.
        device: where to sample; that of context or init when None.

    Raises:
        ValueError: an argument outside its range, or a shape that does not fit.
    """
    config = _schedule(model, scheduler)
    denoise: DenoiseFn = model.denoise if hasattr(model, "denoise") else model  # type: ignore[assignment]
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be (B, H, D), all at least 1, got {tuple(shape)}")
    if not temperature >= 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    if not 0 < init_strength <= 1:
        raise ValueError(f"init_strength must lie in (0, 1], got {init_strength}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, got {clip}")
    double = guidance_scale != 1.0
    if double and uncond_context is None:
        raise ValueError(f"guidance_scale={guidance_scale} needs uncond_context")
    count = config.steps if steps is None else steps
    times, levels = timesteps(config, count), noise_levels(config, count)
    stepper = make_scheduler(config, count)
    first = 0
    if init is not None:
        wanted = init_strength * config.train_steps
        first = min(range(count), key=lambda index: abs(times[index] - wanted))
    times, levels = times[first:], levels[first:]

    like = next((given for given in (context, init) if given is not None), torch.empty(0))
    like = like if device is None else like.to(device)
    noise = randn(shape, generator, like=like) * temperature
    if init is None:
        x = noise
    else:
        if init.ndim != 3 or init.shape[1:] != noise.shape[1:] or len(init) not in (1, len(noise)):
            raise ValueError(f"init must have shape {tuple(shape)} or one row of it, got {tuple(init.shape)}")
        x = add_noise(init.to(noise), noise, *levels[0])
    keep = None if inpaint is None else _expand(inpaint, noise)
    clock = torch.tensor(times, device=noise.device)

    clean, calls = noise, 0
    for index, (t, (alpha, sigma)) in enumerate(zip(times, levels, strict=True)):
        if keep is not None:
            x = torch.where(keep[1], add_noise(keep[0], noise, alpha, sigma), x)
        now = clock[index : index + 1]
        clean = to_clean(config.prediction, denoise(x, now, context), x, alpha, sigma)
        calls += 1
        if double:
            other = to_clean(config.prediction, denoise(x, now, uncond_context), x, alpha, sigma)
            clean = combine(clean, other, guidance_scale)
            calls += 1
        if clip is not None:
            clean = clean.clamp(-clip, clip)
        raw = clean
        for guide in guides:
            clean = apply_guide(guide, clean, t, sigma)
        if guides and clip is not None:
            clean = clean.clamp(-clip, clip)
        if keep is not None:
            clean = torch.where(keep[1], keep[0], clean)
        last = index == len(times) - 1
        if projection is not None and (project_every_step or last):
            clean = _project(projection, clean)
        stop = callback is not None and callback(StepInfo(index, t, x, raw, clean)) is True
        if stop and not last:
            if projection is not None and not project_every_step:
                clean = _project(projection, clean)
            return SampleResult(clean, times[: index + 1], calls, True)
        if not last:
            x = _advance(stepper, config, clean, t, times[index + 1], x, generator, temperature)
    return SampleResult(clean, times, calls)


def _schedule(model: Denoises | DenoiseFn, override: ScheduleConfig | None) -> ScheduleConfig:
    own = getattr(model, "schedule", None)
    if override is None:
        return own if own is not None else ScheduleConfig()
    if own is not None:
        for name in ("prediction", "train_steps", "betas", "zero_snr"):
            if getattr(own, name) != getattr(override, name):
                raise ValueError(
                    f"scheduler.{name} must be the model's {getattr(own, name)!r}, got {getattr(override, name)!r}"
                )
    return override


def _expand(inpaint: Inpaint, like: Tensor) -> tuple[Tensor, Tensor]:
    try:
        return inpaint.values.to(like).expand_as(like), inpaint.mask.to(like.device).bool().expand_as(like)
    except RuntimeError as error:
        raise ValueError(
            f"inpaint values {tuple(inpaint.values.shape)} and mask {tuple(inpaint.mask.shape)} must broadcast to "
            f"{tuple(like.shape)}"
        ) from error


def _project(projection: Callable[[Tensor], Tensor], clean: Tensor) -> Tensor:
    projected = projection(clean)
    if projected.shape != clean.shape:
        raise ValueError(f"projection must return shape {tuple(clean.shape)}, got {tuple(projected.shape)}")
    return projected


def _advance(
    stepper: Any,
    config: ScheduleConfig,
    clean: Tensor,
    t: int,
    following: int,
    x: Tensor,
    generator: torch.Generator,
    temperature: float,
) -> Tensor:
    if config.scheduler != "ddpm":
        return stepper.step(clean, t, x, return_dict=False)[0]
    moved = stepper.step(clean, t, x, generator=generator, return_dict=False)[0]
    if temperature == 1.0:
        return moved
    # DDPM draws its noise inside the step: split the step into the posterior mean (Ho et al. 2020, eq. 7) and noise.
    kept, before = float(stepper.alphas_cumprod[t]), float(stepper.alphas_cumprod[following])
    ratio = kept / before
    mean = (before**0.5 * (1 - ratio) * clean + ratio**0.5 * (1 - before) * x) / (1 - kept)
    return mean + temperature * (moved - mean)

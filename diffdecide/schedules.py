"""Which diffusers schedulers are supported, with which defaults, and which combinations cannot work.

The sampling loop converts every network output to a clean estimate before guides, clipping and projection act on it.
So a scheduler here always receives clean estimates (`prediction_type="sample"`), whatever the network predicts.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

SCHEDULERS = ("ddim", "ddpm", "dpmsolver++")
PREDICTIONS = ("sample", "epsilon", "v")
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("quadratic", "trailing", "leading")
AMPLIFICATION_LIMIT = 500.0


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The noise schedule of a model and how it is sampled.

    Attributes:
        scheduler: "ddim" (Song et al. 2021), "ddpm" (Ho et al. 2020) or "dpmsolver++" (Lu et al. 2022, multistep).
        prediction: what the network predicts: "sample" (x0), "epsilon" or "v" (Salimans and Ho 2022).
        steps: default number of network calls per sample.
        train_steps: N, the discrete times of training; must match at sampling time.
        betas: noise schedule by its diffusers name; the squared cosine is Nichol and Dhariwal 2021.
        order: order of dpmsolver++, 1 to 3; other schedulers ignore it.
        zero_snr: rescale so that time N - 1 is pure noise (Lin et al. 2024); not for epsilon prediction.
        spacing: where the steps lie. "quadratic" starts at time N - 1 and becomes denser down to N / 25; "trailing" is
            uniform from N - 1 on, "leading" uniform down to 0. With five steps the uniform ones take the last step
            from so high a noise that they return averages: of a Gaussian of deviation 0.2 they keep 0.10, quadratic
            ones 0.17 (`tests/diffdecide/test_schedules.py`).
    """

    scheduler: str = "dpmsolver++"
    prediction: str = "sample"
    steps: int = 5
    train_steps: int = 1000
    betas: str = "squaredcos_cap_v2"
    order: int = 2
    zero_snr: bool = False
    spacing: str = "quadratic"

    def __post_init__(self) -> None:
        _one_of("scheduler", self.scheduler, SCHEDULERS)
        _one_of("prediction", self.prediction, PREDICTIONS)
        _one_of("betas", self.betas, BETAS)
        _one_of("spacing", self.spacing, SPACINGS)
        if self.order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, got {self.order=}")
        if self.train_steps < 2:
            raise ValueError(f"train_steps must be at least 2, got {self.train_steps=}")
        _check_steps(self.steps, self.train_steps)
        if self.prediction == "epsilon" and self.zero_snr:
            raise ValueError(
                "prediction='epsilon' cannot work with zero_snr=True: at the last time the input is pure noise, the "
                "clean estimate (x - sigma eps) / alpha divides by zero; use prediction='sample' or 'v'"
            )
        if self.prediction == "epsilon":
            first = timesteps(self, self.steps)[0]
            alpha = float(alphas_cumprod(self)[first]) ** 0.5
            if alpha * AMPLIFICATION_LIMIT < 1:
                raise ValueError(
                    f"prediction='epsilon' cannot work with betas={self.betas!r}, spacing={self.spacing!r} and "
                    f"steps={self.steps}: the first step is taken at time {first}, where an error of the network is "
                    f"multiplied by {1 / alpha:.0f} (limit {AMPLIFICATION_LIMIT:.0f}); use betas='linear', "
                    "spacing='leading', or prediction='sample' or 'v'"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a json configuration."""
        return asdict(self)


@lru_cache(maxsize=64)
def _prototype(config: ScheduleConfig) -> Any:
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    common: dict[str, Any] = {
        "num_train_timesteps": config.train_steps,
        "beta_schedule": config.betas,
        "prediction_type": "sample",
        "rescale_betas_zero_snr": config.zero_snr,
    }
    if config.scheduler == "ddim" and config.spacing != "quadratic":
        return DDIMScheduler(clip_sample=False, **common)
    if config.scheduler == "ddpm":
        return DDPMScheduler(clip_sample=False, **common)
    # DDIM in diffusers only knows uniform strides. The first-order DPM-Solver++ is the same update (Lu et al. 2022,
    # section 4) and takes any times.
    order = 1 if config.scheduler == "ddim" else config.order
    return DPMSolverMultistepScheduler(solver_order=order, algorithm_type="dpmsolver++", **common)


def alphas_cumprod(config: ScheduleConfig) -> Tensor:
    """Share of signal variance at each training time, float64 [train_steps], falling from near 1."""
    betas = _betas(config.betas, config.train_steps, config.zero_snr)
    return (1 - betas).cumprod(0)


def timesteps(config: ScheduleConfig, steps: int) -> tuple[int, ...]:
    """The `steps` times at which the network is called, falling, all different.

    Uniform strides are whole numbers for every scheduler, since DDIM in diffusers assumes that they are.
    """
    _check_steps(steps, config.train_steps)
    if config.spacing == "quadratic":
        return _quadratic(config.train_steps, steps)
    stride = config.train_steps // steps
    last = config.train_steps - 1 if config.spacing == "trailing" else (steps - 1) * stride
    return tuple(last - stride * index for index in range(steps))


def _quadratic(train_steps: int, steps: int) -> tuple[int, ...]:
    top, low = train_steps - 1, min(train_steps // 25, train_steps // steps)
    chosen: list[int] = []
    for index in range(steps):
        share = index / max(1, steps - 1)
        time = round((top**0.5 + share * (low**0.5 - top**0.5)) ** 2)
        # Never above the last time but one, and low enough that what is left still has a time of its own.
        time = max(time, steps - 1 - index)
        chosen.append(min(time, chosen[-1] - 1) if chosen else top)
    return tuple(chosen)


def make_scheduler(config: ScheduleConfig, steps: int | None = None) -> Any:
    """A fresh diffusers scheduler, ready for `steps` steps, that takes clean estimates as the model's output.

    Multistep solvers keep state while they sample: never share the result between two sampling runs. Building one
    costs a shallow copy, the tables are shared.

    Raises:
        ValueError: `steps` lies outside 1 to `config.train_steps`.
    """
    ready = _ready(config, config.steps if steps is None else steps)
    fresh = copy.copy(ready)
    if hasattr(fresh, "model_outputs"):
        fresh.model_outputs = [None] * len(ready.model_outputs)
    return fresh


@lru_cache(maxsize=64)
def _ready(config: ScheduleConfig, steps: int) -> Any:
    from diffusers import DDIMScheduler

    chosen = timesteps(config, steps)
    scheduler = copy.deepcopy(_prototype(config))
    if isinstance(scheduler, DDIMScheduler):
        scheduler.set_timesteps(steps)
        scheduler.timesteps = torch.tensor(chosen)
    else:
        scheduler.set_timesteps(timesteps=list(chosen))
    return scheduler


@lru_cache(maxsize=64)
def noise_levels(config: ScheduleConfig, steps: int) -> tuple[tuple[float, float], ...]:
    """(alpha, sigma) at each of `timesteps(config, steps)`: x_t = alpha x_0 + sigma eps."""
    table = alphas_cumprod(config)
    kept = [float(table[time]) for time in timesteps(config, steps)]
    return tuple((share**0.5, (1 - share) ** 0.5) for share in kept)


def add_noise(clean: Tensor, noise: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """x_t = alpha x_0 + sigma eps, shapes broadcast."""
    return alpha * clean + sigma * noise


def to_clean(prediction: str, output: Tensor, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """The clean estimate that a network output stands for, by its kind of prediction."""
    if prediction == "sample":
        return output
    if prediction == "epsilon":
        return (x - sigma * output) / alpha
    return alpha * x - sigma * output


def target(prediction: str, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network should put out for x_t = alpha x_0 + sigma eps, by its kind of prediction."""
    if prediction == "sample":
        return clean
    if prediction == "epsilon":
        return noise
    return alpha * noise - sigma * clean


@lru_cache(maxsize=16)
def _betas(name: str, count: int, zero_snr: bool) -> Tensor:
    probe = _prototype(ScheduleConfig(betas=name, train_steps=count, zero_snr=zero_snr, steps=1))
    return probe.betas.double()


def _check_steps(steps: int, train_steps: int) -> None:
    if not 1 <= steps <= train_steps:
        raise ValueError(f"steps must lie between 1 and train_steps={train_steps}, got {steps=}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")

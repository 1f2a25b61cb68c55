"""Relative rewards: what turns one planner into another (Nuti, Franzmeyer and Henriques 2023, "Extracting Reward
Functions from Diffusion Models", eq. 5).

A scalar network rho(x_t, t) is fitted so that its gradient is the difference of two denoisers' noise predictions,

    grad rho(x_t, t) = eps_base(x_t, t) - eps_expert(x_t, t) = alpha_t (x̂_expert - x̂_base) / sigma_t,

which is sigma_t times the gradient of log p_expert / p_base at that noise level. Guided by it, the base planner plans
as the expert does; as a number, it says which of the two a plan looks like.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffdecide import noise
from diffdecide.files import read_json, write_atomic, write_json
from diffdecide.guidance import Guide
from diffdecide.nets.mlp import TimeEmbedding
from diffdecide.nets.object_tokens import ObjectTokens
from diffdecide.sampling import Denoises, sample
from diffdecide.schedules import ScheduleConfig, add_noise, alphas_cumprod, to_clean

CONDITIONS = ("ego", "tokens", "token_mask", "goal")


@dataclass(frozen=True, kw_only=True)
class RelativeConfig:
    """Settings of a `RelativeReward`.

    Attributes:
        horizon, dim: H, D of the plans.
        ego_dim, token_dim, goal_dim: of the situation that plans belong to; 0 for plans without one.
        width, depth: of the network.
        first, last: share of the diffusion times that it is fitted on.
        at: share of the time at which a clean plan is judged.
        schedule: keyword arguments of the planners' `ScheduleConfig`.
        environments: ids that the planners were trained for; empty where that does not matter.
        rows: dense, strided, stride of their `PlanRows`; None where plans are not driven.
        features: of their `FeatureConfig`, which made the situation.
        context_dim: width of the situation's encoding, C.
        tokens_options: of `ObjectTokens`, which makes it.
    """

    horizon: int
    dim: int
    ego_dim: int = 0
    token_dim: int = 0
    goal_dim: int = 0
    width: int = 128
    depth: int = 2
    first: float = 0.02
    last: float = 1.0
    at: float = 0.1
    schedule: Mapping[str, Any] | None = None
    environments: tuple[str, ...] = ()
    rows: tuple[int, int, int] | None = None
    features: Mapping[str, Any] | None = None
    context_dim: int = 128
    tokens_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("horizon", "dim", "width", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"RelativeConfig.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.first < self.last <= 1:
            raise ValueError(f"RelativeConfig needs 0 <= first < last <= 1, got {self.first=} and {self.last=}")
        if not self.first <= self.at < self.last:
            raise ValueError(f"RelativeConfig.at must lie in [first, last), got {self.at}")
        if (self.ego_dim > 0) != (self.token_dim > 0):
            raise ValueError("RelativeConfig: ego_dim and token_dim are both given or both 0")
        object.__setattr__(self, "environments", tuple(self.environments))
        object.__setattr__(self, "rows", None if self.rows is None else tuple(self.rows))


class RelativeReward(nn.Module):
    """rho(x_t, t, situation), fitted to two planners by `loss`.

    Args:
        base, expert: models that share the schedule; frozen, and no part of what is saved. None for a fitted reward.
            Where the expert has a conditioner of the configured sizes, the reward begins with a copy of it: the way
            situations are read need not be learned again.
    """

    def __init__(
        self, config: RelativeConfig, base: Denoises | None = None, expert: Denoises | None = None, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.schedule = ScheduleConfig(**(config.schedule or {}))
        for name, model in (("base", base), ("expert", expert)):
            if model is not None and (model.schedule.betas, model.schedule.train_steps) != (
                self.schedule.betas,
                self.schedule.train_steps,
            ):
                raise ValueError(f"the {name} planner has another noise schedule than the relative reward's config")
        # In a tuple, so that they are neither trained nor saved with this module.
        self._planners = (base, expert)
        with noise.seeded(seed):
            self.time = TimeEmbedding(config.width)
            self.enter = nn.Linear(config.horizon * config.dim, config.width)
            self.situation = (
                ObjectTokens(
                    config.ego_dim,
                    config.token_dim,
                    max(config.goal_dim, 1),
                    config.context_dim,
                    **(config.tokens_options or {}),
                )
                if config.ego_dim
                else None
            )
            self.join = nn.Linear(config.context_dim, config.width) if config.ego_dim else nn.Identity()
            layers: list[nn.Module] = []
            for _ in range(config.depth):
                layers += [nn.SiLU(), nn.Linear(config.width, config.width)]
            self.layers = nn.Sequential(*layers, nn.SiLU())
            self.leave = nn.Linear(config.width, 1, bias=False)  # a constant has no gradient to learn from
            self.gain = nn.Linear(config.width, config.width)
            # What the expert does otherwise depends on the situation more than on the plan at hand: that part of rho
            # is linear in the plan, and its gradient is a network's output as it is.
            self.pull = nn.Sequential(
                nn.SiLU(),
                nn.Linear(config.width, config.width),
                nn.SiLU(),
                nn.Linear(config.width, config.horizon * config.dim),
            )
        known = getattr(expert, "conditioner", None)
        if self.situation is not None and known is not None and _sizes(known) == _sizes(self.situation):
            self.situation.load_state_dict(known.state_dict())
        kept = alphas_cumprod(self.schedule)
        self.register_buffer("alpha", kept.sqrt().float(), persistent=False)
        self.register_buffer("sigma", (1 - kept).sqrt().float(), persistent=False)

    def encode(self, situation: Mapping[str, Tensor] | None) -> Tensor | None:
        """The situation as [B, C]: ego, tokens, token_mask and optionally goal."""
        if self.situation is None:
            return None
        if situation is None:
            raise ValueError("this relative reward needs the situation: ego, tokens, token_mask")
        given = [situation[name] for name in CONDITIONS[:3]]
        return self.situation(*given, situation.get("goal") if self.config.goal_dim else None).context

    def forward(self, x: Tensor, t: Tensor, encoded: Tensor | None = None) -> Tensor:
        """rho [B] of noisy plans x [B, H, D] at times t [B] or [1]."""
        if x.shape[1:] != (self.config.horizon, self.config.dim):
            raise ValueError(f"x must be [B, {self.config.horizon}, {self.config.dim}], got {tuple(x.shape)}")
        given = self.time(t) if encoded is None else self.time(t) + self.join(encoded)
        flat = x.flatten(1)
        h = self.enter(flat) * (1 + self.gain(given)) + given
        return self.leave(self.layers(h))[:, 0] + (flat * self.pull(given)).sum(1)

    def reward(self, plans: Tensor, situation: Mapping[str, Tensor] | None = None) -> Tensor:
        """Relative reward [B] of clean plans [B, H, D]: higher is more like the expert's. Differentiable.

        Plans of one situation can be compared. Between situations the reward has no common zero, since only its
        gradient was fitted: `advantage` takes the zero from plans of both planners.
        """
        return self.judge(plans, self.encode(situation))

    def judge(self, plans: Tensor, encoded: Tensor | None) -> Tensor:
        """As `reward`, with the situation [B or 1, C] as `encode` gives it."""
        t = round(self.config.at * (self.schedule.train_steps - 1))
        clock = torch.full((1,), t, device=plans.device)
        return self(float(self.alpha[t]) * plans, clock, encoded)

    def objective(self, situation: Mapping[str, Tensor] | None = None) -> Any:
        """What `diffdecide.guidance.Guide` takes: (clean [B, H, D], t) -> [B]."""
        encoded = self.encode(situation)
        encoded = None if encoded is None else encoded.detach()
        return lambda clean, t: self.judge(clean, encoded)

    def transport(self, encoded: Tensor | None, scale: float = 1.0, *, last: float = 0.9) -> Guide:
        """The guide under which the base planner denoises as the expert does, at a scale of 1; beyond, more so.

        From the definition of rho, x̂_expert - x̂_base = (sigma / alpha) grad rho(x_t, t), taken at the mean x_t that the
        clean estimate leads to.

        Args:
            last: share of the diffusion time above which it does not act: there alpha is too small to divide by.
        """
        encoded = None if encoded is None else encoded.detach()

        def objective(clean: Tensor, t: int) -> Tensor:
            alpha, sigma = float(self.alpha[t]), float(self.sigma[t])
            # The plain rule moves by scale sigma² times the gradient, which brings another alpha.
            return self(alpha * clean, torch.full((1,), t, device=clean.device), encoded) / (sigma * alpha**2)

        return Guide(objective, scale, normalise=False, stop=int(last * self.schedule.train_steps))

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared difference between grad rho and the difference of the noise predictions.

        Args:
            batch: trajectory [B, H, D] (plans of both planners' data), and ego, tokens, token_mask, goal as the
                planners take them; or context [B, C] for denoisers that take it as it is.
        """
        base, expert = self._planners
        if base is None or expert is None:
            raise ValueError("a relative reward is fitted to two planners, but it was made without them")
        clean = batch["trajectory"]
        steps = self.schedule.train_steps
        low, high = int(self.config.first * steps), int(self.config.last * steps)
        t = low + noise.randint(high - low, (len(clean),), generator, device=clean.device)
        eps = noise.randn(clean.shape, generator, like=clean)
        alpha, sigma = self.alpha[t][:, None, None], self.sigma[t][:, None, None]
        x = add_noise(clean, eps, alpha, sigma)
        with torch.no_grad():
            estimates = []
            for model in (base, expert):
                context = batch["context"] if "context" in batch else _context(model, batch)
                output = model.denoise(x, t, context)
                estimates.append(to_clean(model.schedule.prediction, output, x, alpha, sigma))
            wanted = alpha * (estimates[1] - estimates[0]) / sigma
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            rho = self(x, t, self.encode(batch if self.situation is not None else None))
            (gradient,) = torch.autograd.grad(rho.sum(), x, create_graph=True)
        error = (gradient - wanted).square().mean((1, 2))
        explained = 1 - error.sum().detach() / wanted.square().mean((1, 2)).sum().clamp_min(1e-12)
        return {"loss": error.mean(), "explained": explained}

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write `relative.json` and `model.safetensors`."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_atomic(folder / "model.safetensors", lambda temporary: save_file(tensors, temporary))
        write_json(folder / "relative.json", asdict(self.config) | {"schedule": self.schedule.to_dict()})

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> RelativeReward:
        """Read a fitted reward; ValueError where the folder holds none."""
        folder = Path(folder)
        if not (folder / "relative.json").is_file():
            raise ValueError(f"{folder} holds no relative reward: expected relative.json in it")
        model = cls(RelativeConfig(**read_json(folder / "relative.json")))
        try:
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except Exception as error:
            raise ValueError(f"{folder}: the relative reward is damaged ({error})") from error
        return model.eval()


def _sizes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


@torch.no_grad()
def advantage(
    reward: RelativeReward,
    plans: Tensor,
    situation: Mapping[str, Tensor],
    planners: Sequence[Any],
    *,
    generator: torch.Generator,
    samples: int = 8,
    steps: int = 5,
) -> Tensor:
    """Relative reward [B] of plans [B, H, D] less the mean of plans that the planners draw in the same situations.

    That gives all situations one zero, which the fit leaves open.

    Args:
        situation: ego [B, E], tokens [B, K, F], token_mask [B, K], goal [B, G].
        planners: usually both that the reward was fitted to, as `sample` takes them.
        samples: plans of each planner and situation.
    """
    encoded = reward.encode(situation)
    drawn = []
    for planner in planners:
        context = _context(planner, situation).repeat_interleave(samples, 0)
        made = sample(planner, (len(context), *plans.shape[1:]), context=context, generator=generator, steps=steps)
        many = None if encoded is None else encoded.repeat_interleave(samples, 0)
        drawn.append(reward.judge(made.sample, many).view(len(plans), samples).mean(1))
    return reward.judge(plans, encoded) - torch.stack(drawn).mean(0)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a score of `positive` [N] exceeds one of `negative` [M], ties counting half (Mann-Whitney).

    Raises:
        ValueError: a side without a score.
    """
    if len(positive) == 0 or len(negative) == 0:
        raise ValueError(f"auc needs scores on both sides, got {len(positive)} and {len(negative)}")
    order = np.sort(np.asarray(negative, dtype=np.float64))
    wins = np.searchsorted(order, positive, "left") + np.searchsorted(order, positive, "right")
    return float(wins.mean() / (2 * len(order)))


def _context(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    given = {name: batch[name] for name in CONDITIONS if name in batch}
    return model.context(**given).context

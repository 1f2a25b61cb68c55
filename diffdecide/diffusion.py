"""TrajectoryDiffusion: conditioner, denoiser and noise schedule as one trainable, savable module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from diffdecide import noise
from diffdecide.nets.object_tokens import ABSENT, ObjectContext, ObjectTokens
from diffdecide.schedules import ScheduleConfig, add_noise, alphas_cumprod, target, to_clean

DENOISERS = ("mlp", "dit", "unet")
CONDITIONS = ("goal", "return", "budget")


class TrajectoryDiffusion(ModelMixin, ConfigMixin):
    """A conditional diffusion model over plans [B, H, D].

    Args:
        horizon: H rows of a plan.
        dim: D values per row (normalised).
        ego_dim, token_dim, goal_dim: E, F, G of the conditioner's inputs.
        context_dim: C.
        denoiser: "mlp", "dit" or "unet".
        denoiser_options: further keyword arguments of that network.
        tokens_options: further keyword arguments of `ObjectTokens`.
        schedule: keyword arguments of `ScheduleConfig`.
        drop_goal, drop_return, drop_budget: probability that a training sample loses that condition, independently
            (classifier-free guidance, Ho and Salimans 2022).
        row_weights: [H] weight of each plan row in the loss; equal when None.
        target_weight: weight of the pointer's cross-entropy beside the denoising loss.
    """

    @register_to_config
    def __init__(
        self,
        horizon: int,
        dim: int,
        ego_dim: int,
        token_dim: int,
        goal_dim: int,
        context_dim: int = 128,
        denoiser: str = "mlp",
        denoiser_options: dict[str, Any] | None = None,
        tokens_options: dict[str, Any] | None = None,
        schedule: dict[str, Any] | None = None,
        drop_goal: float = 0.1,
        drop_return: float = 0.2,
        drop_budget: float = 0.2,
        row_weights: list[float] | None = None,
        target_weight: float = 0.1,
    ) -> None:
        super().__init__()
        chances = {"goal": drop_goal, "return": drop_return, "budget": drop_budget}
        for name, chance in chances.items():
            if not 0 <= chance <= 1:
                raise ValueError(f"drop_{name} must be a probability, got {chance}")
        if target_weight < 0:
            raise ValueError(f"target_weight must not be negative, got {target_weight}")
        if row_weights is not None and (len(row_weights) != horizon or min(row_weights) < 0):
            raise ValueError(f"row_weights must hold {horizon} numbers that are not negative, got {row_weights}")
        self.schedule = ScheduleConfig(**(schedule or {}))
        # Saved in full: a model must not change its meaning when a default changes.
        self.register_to_config(schedule=self.schedule.to_dict())
        self.conditioner = ObjectTokens(ego_dim, token_dim, goal_dim, context_dim, **(tokens_options or {}))
        self.network = build_denoiser(denoiser, horizon, dim, context_dim, **(denoiser_options or {}))
        self.drop = chances
        self._target_weight = target_weight
        kept = alphas_cumprod(self.schedule)
        weights = torch.ones(horizon) if row_weights is None else torch.tensor(row_weights, dtype=torch.float32)
        self.register_buffer("alpha", kept.sqrt().float(), persistent=False)
        self.register_buffer("sigma", (1 - kept).sqrt().float(), persistent=False)
        self.register_buffer("loss_weights", weights[None], persistent=False)

    @property
    def plan_shape(self) -> tuple[int, int]:
        """(H, D)."""
        return self.config["horizon"], self.config["dim"]

    def context(
        self,
        ego: Tensor,
        tokens: Tensor,
        token_mask: Tensor,
        goal: Tensor | None = None,
        return_to_go: Tensor | None = None,
        cost_budget: Tensor | None = None,
        *,
        without: tuple[str, ...] = (),
    ) -> ObjectContext:
        """Encode what a plan is conditioned on, once per plan; the arguments are those of `ObjectTokens.forward`.

        Args:
            without: conditions replaced by their null embedding, out of "goal", "return", "budget": the context of
                the unconditional branch of classifier-free guidance.

        Raises:
            ValueError: an unknown name in `without`, or a shape that does not fit.
        """
        for name in without:
            if name not in CONDITIONS:
                raise ValueError(f"without may hold {', '.join(CONDITIONS)}, got {name!r}")
        return self.conditioner(
            ego,
            tokens,
            token_mask,
            None if "goal" in without else goal,
            None if "return" in without else return_to_go,
            None if "budget" in without else cost_budget,
        )

    def denoise(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The network's raw prediction for x [B, H, D] at times t [B] or [1] under context [B, C] or [1, C].

        `schedule.prediction` says what it is: clean sample, noise, or velocity.
        """
        return self.network(x, t, context)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The same as `denoise`."""
        return self.network(x, t, context)

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Denoising loss on the configured prediction, plus the pointer's cross-entropy.

        Args:
            batch: trajectory [B, H, D], mask [B, H] (True = counts), ego, tokens, token_mask, goal, and optionally
                return_to_go [B], cost_budget [B], target_index [B] (-1 unknown), weight [B].
            generator: source of times, noise and dropped conditions.

        Returns:
            "loss" (differentiable), and "denoise", "target" and "clean_mse" for the record. Rows are averaged within
            their sample and samples within the batch, so the mean over processes is the loss of the joint batch.

        Raises:
            ValueError: a missing key or a shape that does not fit.
        """
        clean = _get(batch, "trajectory")
        rows = len(clean)
        if clean.shape[1:] != self.plan_shape:
            raise ValueError(f"trajectory must have shape [B, {self.plan_shape}], got {tuple(clean.shape)}")
        mask = _get(batch, "mask")
        if mask.shape != clean.shape[:2]:
            raise ValueError(f"mask must have shape {tuple(clean.shape[:2])}, got {tuple(mask.shape)}")
        t = noise.randint(self.schedule.train_steps, (rows,), generator, device=clean.device)
        eps = noise.randn(clean.shape, generator, like=clean)
        chances = noise.rand((rows, len(CONDITIONS)), generator, like=clean)
        dropped = {name: chances[:, i] < self.drop[name] for i, name in enumerate(CONDITIONS)}

        encoded = self.conditioner(
            _get(batch, "ego"),
            _get(batch, "tokens"),
            _get(batch, "token_mask"),
            batch.get("goal"),
            batch.get("return_to_go"),
            batch.get("cost_budget"),
            drop_goal=dropped["goal"],
            drop_return=dropped["return"],
            drop_budget=dropped["budget"],
        )
        alpha, sigma = self.alpha[t][:, None, None], self.sigma[t][:, None, None]
        noisy = add_noise(clean, eps, alpha, sigma)
        output = self.network(noisy, t, encoded.context).float()
        wanted = target(self.schedule.prediction, clean, eps, alpha, sigma)

        weight = mask.to(clean.dtype) * self.loss_weights
        weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-8)
        sample_weight = batch.get("weight")
        if sample_weight is not None:
            weight = weight * sample_weight[:, None]
        denoise = ((output - wanted).square().mean(2) * weight).sum(1).mean()
        pointed = self._pointer_loss(encoded.target_logits, batch.get("target_index"), dropped["goal"])
        with torch.no_grad():
            estimate = to_clean(self.schedule.prediction, output, noisy, alpha, sigma).clamp(-1, 1)
            clean_mse = ((estimate - clean).square().mean(2) * weight).sum(1).mean()
        loss = denoise + self._target_weight * pointed
        return {"loss": loss, "denoise": denoise.detach(), "target": pointed.detach(), "clean_mse": clean_mse}

    def _pointer_loss(self, logits: Tensor, index: Tensor | None, dropped: Tensor) -> Tensor:
        if index is None or logits.shape[1] == 0:
            return logits.sum() * 0
        if index.shape != logits.shape[:1] or bool((index >= logits.shape[1]).any()):
            raise ValueError(f"target_index must be [B] with entries below {logits.shape[1]}, got {tuple(index.shape)}")
        logits = logits.float()
        # A target that is not present, and a goal that was dropped, teach the pointer nothing.
        at_target = logits.gather(1, index.clamp_min(0)[:, None])[:, 0]
        index = torch.where(dropped | (at_target < ABSENT / 2), -1, index)  # half precision rounds ABSENT
        return F.cross_entropy(logits, index, ignore_index=-1, reduction="sum") / len(logits)


def build_denoiser(name: str, horizon: int, dim: int, context_dim: int, **options: Any) -> nn.Module:
    """The network called `name` for plans [B, horizon, dim].

    Raises:
        ValueError: an unknown name, or options that the network refuses.
    """
    if name == "mlp":
        from diffdecide.nets.mlp import ResidualMLP as network
    elif name == "dit":
        from diffdecide.nets.dit import DiT1d as network
    elif name == "unet":
        from diffdecide.nets.temporal_unet import TemporalUnet as network
    else:
        raise ValueError(f"denoiser must be one of {', '.join(DENOISERS)}, got {name!r}")
    return network(horizon, dim, context_dim, **options)


def _get(batch: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in batch:
        raise ValueError(f"the batch lacks {key!r}; it has {', '.join(sorted(batch))}")
    return batch[key]

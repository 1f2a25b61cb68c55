"""Direct preference alignment of a planner (Wallace et al. 2023, "Diffusion Model Alignment Using Direct Preference
Optimization", eq. 14).

With e(plan) the weighted denoising error of the policy minus that of its frozen reference, under one noise and time,

    loss = -log sigma(-beta (e(preferred) - e(other))).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffdecide import noise
from diffdecide.sampling import sample
from diffdecide.schedules import add_noise, alphas_cumprod, to_clean
from reward_models.teachers import Teacher, bayes_rate

CONDITIONS = ("ego", "tokens", "token_mask", "goal", "return_to_go", "cost_budget")


@dataclass(frozen=True, kw_only=True)
class DPOConfig:
    """Settings of `DiffusionDPO`.

    Attributes:
        beta: how strongly preferences pull against the reference; the paper's beta T omega.
        max_snr: the error's weight is min(signal-to-noise ratio, this), so that times without noise do not rule.
        anchor: weight of the policy's ordinary denoising loss on the preferred plans (as in RPO, Pang et al. 2024),
            which keeps it from leaving the data.
    """

    beta: float = 20.0
    max_snr: float = 5.0
    anchor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("beta", "max_snr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"DPOConfig.{name} must be positive, got {getattr(self, name)}")
        if not self.anchor >= 0:
            raise ValueError(f"DPOConfig.anchor must not be negative, got {self.anchor}")


class DiffusionDPO(nn.Module):
    """A planner's diffusion model in alignment, for `diffdecide.train.fit`.

    Args:
        policy: `TrajectoryDiffusion`, or a module with `denoise(x, t, context)`, `schedule` and `save_pretrained`.
            It is trained in place.
        reference: what it must stay close to; None is a frozen copy of the policy as it is now.
    """

    def __init__(
        self, policy: nn.Module, config: DPOConfig | None = None, *, reference: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.config = config or DPOConfig()
        self.policy = policy
        frozen = copy.deepcopy(policy) if reference is None else reference
        # In a tuple, so that the reference is neither trained nor saved.
        self._reference = (frozen.eval().requires_grad_(False),)
        kept = alphas_cumprod(policy.schedule)  # type: ignore[arg-type]
        self.register_buffer("alpha", kept.sqrt().float(), persistent=False)
        self.register_buffer("sigma", (1 - kept).sqrt().float(), persistent=False)

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Loss of pairs of plans for one situation each.

        Args:
            batch: trajectory_1, trajectory_2 [B, H, D], label [B] (probability that the first is preferred), and ego,
                tokens, token_mask, goal, ... as the planner takes them, or context [B, C] as it is.

        Returns:
            "loss" (differentiable); "accuracy" (share of pairs in which the policy moved towards the preferred plan)
            and "shift" (mean of the logit's size) for the record.
        """
        config, reference = self.config, self._reference[0]
        first, second, label = batch["trajectory_1"], batch["trajectory_2"], batch["label"]
        if first.shape != second.shape or label.shape != first.shape[:1]:
            raise ValueError(
                f"expected trajectory_1 and trajectory_2 of one shape and label [B], got {tuple(first.shape)}, "
                f"{tuple(second.shape)} and {tuple(label.shape)}"
            )
        t = noise.randint(len(self.alpha), (len(first),), generator, device=first.device)
        eps = noise.randn(first.shape, generator, like=first)
        alpha, sigma = self.alpha[t][:, None, None], self.sigma[t][:, None, None]
        weight = (alpha / sigma).square()[:, 0, 0].clamp_max(config.max_snr)

        def errors(model: Any) -> list[Tensor]:
            context = batch["context"] if "context" in batch else _context(model, batch)
            found = []
            for clean in (first, second):
                noisy = add_noise(clean, eps, alpha, sigma)
                estimate = to_clean(model.schedule.prediction, model.denoise(noisy, t, context), noisy, alpha, sigma)
                found.append((estimate - clean).square().mean((1, 2)) * weight)
            return found

        ours = errors(self.policy)
        with torch.no_grad():
            theirs = errors(reference)
        logit = -config.beta * ((ours[0] - theirs[0]) - (ours[1] - theirs[1]))
        loss = -(label * F.logsigmoid(logit) + (1 - label) * F.logsigmoid(-logit)).mean()
        if config.anchor:
            preferred = torch.where(label > 0.5, ours[0], ours[1])
            loss = loss + config.anchor * preferred.mean()
        with torch.no_grad():
            decided = label != 0.5
            right = ((logit > 0) == (label > 0.5))[decided].float()
            accuracy = right.mean() if len(right) else torch.ones(())
        return {"loss": loss, "accuracy": accuracy, "shift": logit.detach().abs().mean()}

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Save the aligned planner's model; the reference is not part of it."""
        self.policy.save_pretrained(save_directory)  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class PlanPairs:
    """Pairs of plans of one planner in the same situations, as a data set for `fit`.

    Attributes:
        batch: trajectory_1, trajectory_2 [N, H, D], label [N], and the situations.
        bayes_accuracy: of the teacher's answers.
    """

    batch: Mapping[str, Tensor]
    bayes_accuracy: float

    def __len__(self) -> int:
        return len(self.batch["label"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[index] for name, value in self.batch.items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        rows = torch.as_tensor(indices)
        return {name: value[rows] for name, value in self.batch.items()}


@torch.no_grad()
def pair_plans(
    model: Any,
    situations: Mapping[str, Tensor],
    score: Callable[[Tensor, Mapping[str, Tensor]], np.ndarray],
    teacher: Teacher,
    *,
    generator: torch.Generator,
    rng: np.random.Generator,
    steps: int | None = None,
    temperature: float = 1.0,
    chunk: int = 256,
) -> PlanPairs:
    """Let the planner draw two plans for each situation and the teacher prefer one.

    Args:
        model: `TrajectoryDiffusion`.
        situations: ego [N, E], tokens [N, K, F], token_mask [N, K], goal [N, G]; further entries go to `score`.
        score: (plans [N, H, D], situations) -> what each plan is worth to the teacher, [N].
    """
    count = len(situations["ego"])
    drawn: list[list[Tensor]] = [[], []]
    for start in range(0, count, chunk):
        part = {name: value[start : start + chunk] for name, value in situations.items()}
        context = _context(model, part)
        for side in drawn:
            shape = (len(part["ego"]), *model.plan_shape)
            made = sample(model, shape, context=context, generator=generator, steps=steps, temperature=temperature)
            side.append(made.sample)
    plans = [torch.cat(side) for side in drawn]
    scores = [np.asarray(score(side, situations), dtype=np.float64) for side in plans]
    answers = teacher.answer(scores[0], scores[1], rng)
    kept = torch.from_numpy(np.flatnonzero(answers.asked))
    if len(kept) == 0:
        raise ValueError(f"the teacher skipped all {count} pairs of plans")
    batch = {name: value[kept] for name, value in situations.items() if name in CONDITIONS}
    batch |= {
        "trajectory_1": plans[0][kept],
        "trajectory_2": plans[1][kept],
        "label": torch.from_numpy(answers.label)[kept],
    }
    decided = answers.asked & ~answers.tie
    return PlanPairs(batch, bayes_rate(answers.probability[decided]) if decided.any() else 0.5)


def _context(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    return model.context(**{name: batch[name] for name in CONDITIONS if name in batch}).context

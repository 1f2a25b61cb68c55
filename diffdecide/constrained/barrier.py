"""Barrier-certified denoising: each denoising step is a motion of the plan, filtered by a control barrier function.

W. Xiao, T.-H. Wang, C. Gan, D. Rus, "SafeDiffuser: safe planning with diffusion probabilistic models", 2023. The
step u = x_{k-1} - x_k that the scheduler takes is replaced by the nearest one with
grad h(x_k) . u + rate * (h(x_k) - gamma_k) >= weight_k * r: eqs. (9) robust (gamma = 0, weight = 0), (11) relaxed
(slack r at price r^2, weight falling to zero), (13) time-varying (gamma from the first violation up to zero).
For violated rows the same inequality is finite-time convergence into the allowed set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffdecide.constrained.plan_constraints import HalfSpaces, PlanConstraints
from diffdecide.constrained.projection import nearest, project_plans
from diffdecide.constrained.steering import Demand, Moment, Steering

FORMS = ("robust", "relaxed", "time-varying")


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """Settings of barrier-certified denoising.

    Attributes:
        form: one of `FORMS`.
        rate: share of a violation that one step must remove, and of a clearance that it may use up, in (0, 1].
        relax: weight of the slack at the start of the schedule ("relaxed"); it falls linearly to zero.
        certify: the finished sample is brought into the set as the last step of the certificate (rate 1). The theorem
            asks for it; False shows what the barrier alone achieves.
    """

    form: str = "robust"
    rate: float = 0.5
    relax: float = 10.0
    certify: bool = True

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {self.form!r}")
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], got {self.rate=}")
        if not 0 <= self.relax < float("inf"):
            raise ValueError(f"relax must be a finite number >= 0, got {self.relax=}")

    @property
    def name(self) -> str:
        return f"barrier-{self.form}"

    def begin(self, demand: Demand) -> Steering:
        return _Run(self, demand.require_constraints(self.name), demand.clip)


class _Run(Steering):
    def __init__(self, settings: Barrier, constraints: PlanConstraints, clip: float | None) -> None:
        self.settings, self.constraints, self.clip = settings, constraints, clip
        self.before: Tensor | None = None
        self.start: Tensor | None = None  # [B, M] violation of each row at the first iterate

    def iterate(self, x: Tensor, moment: Moment) -> Tensor:
        if self.before is None:
            self.before = x.clone()
            return x
        x = self._step(self.before, x, moment)
        self.before = x.clone()
        return x

    def _step(self, before: Tensor, after: Tensor, moment: Moment) -> Tensor:
        settings = self.settings
        rows, bounds, hard = self.constraints.linearise(before)
        at = (rows @ before.flatten(1)[..., None])[..., 0]
        if self.start is None:
            self.start = (at - bounds).clamp_min(0)
        if settings.form == "time-varying" and self.start.shape == bounds.shape:
            bounds = bounds + moment.left * self.start
        allowed = bounds + (1 - settings.rate) * (at - bounds)
        flat = after.flatten(1)
        if settings.form == "relaxed" and moment.left > 0:
            weight = settings.relax * moment.left
            rows = torch.cat([rows, rows.new_full((*rows.shape[:2], 1), -weight)], -1)
            flat = torch.cat([flat, flat.new_zeros(len(flat), 1)], -1)
        moved, _, _ = nearest(flat, HalfSpaces(rows, allowed, hard), None, 48)
        return moved[:, : after[0].numel()].reshape(after.shape).to(after)

    def final(self, clean: Tensor) -> Tensor:
        if not self.settings.certify:
            return clean
        return project_plans(clean, self.constraints, iterations=6, clip=self.clip).plans

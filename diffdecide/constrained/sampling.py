"""Sampling under constraints and a cost limit: one call for every method, on every supported scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffdecide.constrained.budget import BudgetGuidance
from diffdecide.constrained.plan_constraints import PlanConstraints, violation
from diffdecide.constrained.projected import Projected
from diffdecide.constrained.steering import Demand, Method, PlanCost, SteeredModel
from diffdecide.sampling import SampleResult, sample
from diffdecide.schedules import ScheduleConfig


@dataclass(frozen=True)
class ConstrainedResult:
    """A finished sample and what it keeps.

    Attributes:
        sample: [B, H, D].
        violation: [B] depth of the worst violation, in the constraints' units; None without constraints.
        cost: [B] the plan cost; None without one.
        within: [B] bool, no violation beyond 1e-3 and cost within the limit.
        network_calls: of the denoiser.
        result: what `sample` returned.
    """

    sample: Tensor
    violation: Tensor | None
    cost: Tensor | None
    within: Tensor
    network_calls: int
    result: SampleResult


@torch.no_grad()
def sample_constrained(
    model: Any,
    shape: Sequence[int],
    *,
    generator: torch.Generator,
    method: Method | None = None,
    constraints: PlanConstraints | None = None,
    cost: PlanCost | None = None,
    cost_limit: float = 0.0,
    budget: BudgetGuidance | None = None,
    context: Tensor | None = None,
    uncond_context: Tensor | None = None,
    guidance_scale: float = 1.0,
    scheduler: ScheduleConfig | None = None,
    steps: int | None = None,
    clip: float | None = 1.0,
    **options: Any,
) -> ConstrainedResult:
    """Draw plans from a diffusion model under constraints.

    Args:
        model, shape, generator, context, uncond_context, guidance_scale, scheduler, steps, clip: as in
            `diffdecide.sampling.sample`, which does the work.
        method: how; None projects every iterate (`Projected()`), or samples freely without constraints.
        constraints: what plans must keep, see `diffdecide.constrained.plan_constraints`.
        cost: differentiable cost of a plan [B, H, D] -> [B], such as a critic's; methods that need one and get only
            constraints take the mean violation.
        cost_limit: >= 0, in the units of `cost`.
        budget: classifier-free guidance on the cost budget, with any method; replaces `context`.
        options: further arguments of `sample` (guides, inpaint, temperature, init, init_strength, callback, device).

    Raises:
        ValueError: a negative limit, a method without what it needs, shapes that do not fit.
    """
    for name in ("projection", "project_every_step"):
        if name in options:
            raise ValueError(f"{name} is decided by the method here; pass constraints instead")
    if method is None:
        from diffdecide.constrained.steering import Unconstrained

        method = Unconstrained() if constraints is None else Projected()
    demand = Demand(constraints, cost, cost_limit, clip)
    schedule = getattr(model, "schedule", None) or ScheduleConfig()
    if scheduler is not None:
        schedule = scheduler
    if steps is not None:
        schedule = replace(schedule, steps=steps)
    if guidance_scale != 1.0 and uncond_context is None and budget is None:
        raise ValueError(f"guidance_scale={guidance_scale} needs uncond_context")
    steering = method.begin(demand)
    steered = SteeredModel(
        model,
        steering,
        schedule=schedule,
        steps=schedule.steps,
        clip=clip,
        uncond_context=budget.unconditional if budget is not None else uncond_context,
        scale=budget.scale if budget is not None else guidance_scale,
        context_at=None if budget is None else budget.context,
    )
    like = budget.unconditional if budget is not None and context is None else context
    result = sample(
        steered,
        shape,
        generator=generator,
        context=like,
        projection=steering.final,
        project_every_step=False,
        steps=schedule.steps,
        clip=clip,
        **options,
    )
    plans = result.sample
    depth = None if constraints is None else violation(constraints, plans)
    paid = None if cost is None else cost(plans)
    within = torch.ones(len(plans), dtype=torch.bool, device=plans.device)
    if depth is not None:
        within &= depth <= 1e-3
    if paid is not None:
        within &= paid <= cost_limit + 1e-6
    return ConstrainedResult(plans, depth, paid, within, steered.calls, result)

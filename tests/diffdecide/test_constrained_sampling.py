"""Every method of constrained sampling on Gaussians whose restriction is known, for every scheduler."""

import math

import pytest
import torch
from constrained_gaussian import SPREAD, GaussianModel

from diffdecide.constrained.barrier import Barrier
from diffdecide.constrained.budget import BudgetGuidance
from diffdecide.constrained.catalogue import METHODS, method_named
from diffdecide.constrained.gradients import CostGuidance, PrimalDual
from diffdecide.constrained.plan_constraints import RowConstraints
from diffdecide.constrained.projected import Projected
from diffdecide.constrained.projection import project_plans
from diffdecide.constrained.sampling import sample_constrained
from diffdecide.constrained.steering import Demand, Moment, Unconstrained
from diffdecide.schedules import PREDICTIONS, SCHEDULERS, ScheduleConfig
from safety.constraints import Ball, Box, HalfSpace

LIMIT = 0.2  # x <= LIMIT cuts about a third of N(0, 0.5^2)
HALF_SPACE = RowConstraints([HalfSpace((1.0, 0.0), LIMIT)], 1)
BALL = RowConstraints([Ball((0.1, 0.0), 0.4)], 1)
CERTIFIED = [name for name in METHODS if name.startswith(("projected", "barrier"))]


def schedule(scheduler="ddim", **options):
    return ScheduleConfig(scheduler=scheduler, spacing="quadratic", **({"steps": 20} | options))


def draw(method, constraints=HALF_SPACE, *, scheduler="ddim", rows=600, seed=0, model=None, **options):
    return sample_constrained(
        model or GaussianModel(schedule(scheduler)),
        (rows, 1, 2),
        generator=torch.Generator().manual_seed(seed),
        method=method,
        constraints=constraints,
        clip=None,
        **options,
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", CERTIFIED)
def test_certified_methods_leave_no_violation(name, scheduler):
    for constraints in (HALF_SPACE, BALL):
        result = draw(method_named(name), constraints, scheduler=scheduler, rows=64)
        assert bool(result.within.all())
        assert float(result.violation.max()) <= 1e-3
        assert bool(result.sample.isfinite().all())


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_kind_of_prediction_is_steered_alike(prediction):
    model = GaussianModel(schedule(prediction=prediction, betas="linear"))
    reference = GaussianModel(schedule(betas="linear"))
    for name in ("projected-clean", "primal-dual", "barrier-robust"):
        mine, wanted = (draw(method_named(name), model=m, rows=32).sample for m in (model, reference))
        assert torch.allclose(mine, wanted, atol=2e-3), name


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_projecting_the_final_plan_gives_the_rectified_gaussian(scheduler):
    free = draw(Unconstrained(), scheduler=scheduler, rows=4000)
    result = draw(Projected(place="final"), scheduler=scheduler, rows=4000)
    wanted = free.sample.clone()
    wanted[..., 0] = wanted[..., 0].clamp_max(LIMIT)
    assert torch.allclose(result.sample, wanted, atol=1e-5)
    # E[min(X, b)] = -s phi(b/s) + b (1 - Phi(b/s)) for X ~ N(0, s^2).
    ratio = LIMIT / SPREAD
    density, share = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(ratio / math.sqrt(2)))
    assert float(result.sample[..., 0].mean()) == pytest.approx(-SPREAD * density + LIMIT * (1 - share), abs=0.03)


def test_projecting_outside_a_ball_moves_radially_to_its_edge():
    free, result = draw(Unconstrained(), BALL).sample, draw(Projected(place="final"), BALL).sample
    offset = free - torch.tensor([0.1, 0.0])
    length = offset.norm(dim=-1, keepdim=True)
    wanted = torch.tensor([0.1, 0.0]) + offset / length * length.clamp_min(0.4)
    assert torch.allclose(result, wanted, atol=2e-3)


@pytest.mark.parametrize("name", ["projected-clean", "projected-iterates", "barrier-robust", "primal-dual"])
def test_a_half_space_does_not_touch_the_directions_along_it(name):
    free, result = draw(Unconstrained()).sample, draw(method_named(name)).sample
    assert torch.allclose(free[..., 1], result[..., 1], atol=1e-4)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_primal_dual_ends_at_the_projection_of_a_linear_cost(scheduler):
    method = PrimalDual(inner=1, last=20)
    cost = lambda plans: 7.0 * plans[:, 0, 0]  # noqa: E731 - the unit of the cost must not matter
    result = draw(method, None, scheduler=scheduler, cost=cost, cost_limit=7 * LIMIT)
    assert float(result.cost.max()) <= 7 * LIMIT + 1e-3
    model = GaussianModel(schedule(scheduler))
    only_last = PrimalDual(inner=1, last=20)
    free = draw(Unconstrained(), model=model, scheduler=scheduler).sample
    run = only_last.begin(_demand(cost, 7 * LIMIT))
    wanted = free.clone()
    wanted[..., 0] = wanted[..., 0].clamp_max(LIMIT)
    assert torch.allclose(run.final(free), wanted, atol=1e-4)


def _demand(cost, limit):
    return Demand(None, cost, limit, None)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_cost_guidance_needs_no_tuning_to_the_unit_of_the_cost(scheduler):
    free = draw(Unconstrained(), scheduler=scheduler).sample
    small, large = (
        draw(
            CostGuidance(),
            None,
            scheduler=scheduler,
            cost=lambda plans, unit=unit: unit * plans[:, 0, 0],
            cost_limit=unit * LIMIT,
        ).sample
        for unit in (1e-3, 1e3)
    )
    assert torch.allclose(small, large, atol=1e-3)
    over, before = ((plans[:, 0, 0] - LIMIT).clamp_min(0).mean() for plans in (small, free))
    assert float(over) < 0.35 * float(before)
    assert torch.allclose(small[..., 1], free[..., 1], atol=1e-4)


def test_cost_guidance_moves_nothing_that_keeps_the_limit():
    free = draw(Unconstrained())
    result = draw(CostGuidance(), None, cost=lambda plans: plans[:, 0, 0], cost_limit=100.0)
    assert torch.allclose(free.sample, result.sample, atol=1e-5)


@pytest.mark.parametrize("form", ["robust", "relaxed", "time-varying"])
def test_a_barrier_alone_removes_most_of_the_violation(form):
    free = draw(Unconstrained())
    result = draw(Barrier(form=form, certify=False))
    assert float(result.violation.mean()) < 0.5 * float(free.violation.mean())


def test_a_robust_barrier_shrinks_a_violation_by_its_rate():
    run = Barrier(rate=0.25).begin(Demand(HALF_SPACE, clip=None))
    start = torch.tensor([[[LIMIT + 1.0, 0.3]]])
    moment = Moment(0, 900, 0.1, 0.99, 0.9, False)
    run.iterate(start, moment)
    moved = run.iterate(start.clone(), moment)  # the scheduler would stay: the barrier must not
    assert moved[0, 0].tolist() == pytest.approx([LIMIT + 0.75, 0.3], abs=1e-5)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_budget_guidance_moves_the_mean_by_its_scale(scheduler, scale):
    guidance = BudgetGuidance(
        lambda budget: torch.tensor([[budget / 100]]), torch.zeros(1, 1), budget=30.0, scale=scale
    )
    result = draw(Unconstrained(), None, scheduler=scheduler, budget=guidance, rows=3000)
    assert float(result.sample.mean()) == pytest.approx(scale * 0.3, abs=0.04)
    assert result.network_calls == (20 if scale == 1 else 40)


def test_the_budget_may_change_within_a_run():
    seen = []
    budget = BudgetGuidance(
        lambda value: (seen.append(value), torch.zeros(1, 1))[1],
        torch.zeros(1, 1),
        budget=lambda moment: 10.0 * moment.left,
        scale=1.0,
    )
    draw(Unconstrained(), None, budget=budget, rows=2)
    assert seen[0] == pytest.approx(10.0)
    assert seen[-1] == 0.0
    assert seen == sorted(seen, reverse=True)


def test_projection_comes_with_the_data_distribution_where_it_is_allowed():
    """Projected sampling keeps what was inside: the mean shift is that of the part cut off, not more."""
    free, result = draw(Unconstrained(), rows=3000).sample, draw(Projected(), rows=3000).sample
    inside = free[:, 0, 0] < LIMIT - 3 * SPREAD / 2
    assert torch.allclose(free[inside], result[inside], atol=0.05)


def test_contradictory_constraints_take_the_least_violation_and_say_so():
    constraints = RowConstraints([HalfSpace((1.0, 0.0), -0.5), HalfSpace((-1.0, 0.0), -0.5)], 1)
    answer = project_plans(torch.zeros(3, 1, 2), constraints)
    assert bool(answer.infeasible.all())
    assert bool(answer.plans.isfinite().all())
    assert answer.violation.tolist() == pytest.approx([0.5] * 3, abs=0.01)


def test_a_soft_constraint_gives_way_to_a_hard_one():
    constraints = RowConstraints([HalfSpace((1.0, 0.0), -0.5), HalfSpace((-1.0, 0.0), -0.5, rank="soft")], 1)
    answer = project_plans(torch.full((2, 1, 2), 1.0), constraints)
    assert bool(answer.relaxed.all())
    assert not bool(answer.infeasible.any())
    assert float(answer.plans[:, 0, 0].max()) <= -0.5 + 1e-6


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="cost limit"):
        draw(Unconstrained(), cost=lambda plans: plans.sum((1, 2)), cost_limit=-1.0)
    with pytest.raises(ValueError, match="projected-iterates.*needs constraints"):
        draw(Projected(), None)
    with pytest.raises(ValueError, match="needs a cost or constraints"):
        draw(PrimalDual(), None)
    with pytest.raises(ValueError, match="features"):
        draw(Projected(), RowConstraints([Box((0.0,), (1.0,), dims=(5,))], 1), rows=2)
    with pytest.raises(ValueError, match=r"\[B, 3, D\]"):
        draw(Projected(), RowConstraints([HalfSpace((1.0, 0.0), 0.0)], 3), rows=2)
    with pytest.raises(ValueError, match="must be finite"):
        project_plans(torch.full((1, 1, 2), math.nan), HALF_SPACE)
    with pytest.raises(ValueError, match="did you mean 'primal-dual'"):
        method_named("primal-duel")
    with pytest.raises(ValueError, match="budget must be"):
        BudgetGuidance(lambda b: torch.zeros(1, 1), torch.zeros(1, 1), budget=-1.0)
    with pytest.raises(ValueError, match="one number|shape"):
        draw(PrimalDual(), None, cost=lambda plans: plans[:, 0], cost_limit=0.0)

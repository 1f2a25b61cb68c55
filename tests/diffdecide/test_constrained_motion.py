"""Constraints on where motor commands lead to."""

import pytest
import torch

from diffdecide.constrained.plan_constraints import MotionConstraints, violation
from diffdecide.constrained.projection import project_plans
from diffdecide.plan import PlanRows
from safety.constraints import Ball, Speed
from safety.dynamics import dynamics_for

ROWS = PlanRows(dense=4, strided=6, stride=4)


def motion(agent="point", constraints=None, state=(0, 0, 0, 0.8, 0, 0)):
    constraints = constraints or [Ball((0.45, 0.02), 0.2, margin=0.03)]
    return MotionConstraints(dynamics_for(agent), ROWS, torch.tensor(state, dtype=torch.float32), constraints)


def random_plans(count, seed=0):
    return 0.6 * torch.rand(count, ROWS.rows, 2, generator=torch.Generator().manual_seed(seed)) - 0.3


@pytest.mark.parametrize("agent", ["point", "car"])
def test_half_spaces_are_the_first_order_expansion(agent):
    held = motion(agent)
    plans, step = random_plans(3).double(), 1e-4
    held.state = held.state.double()
    rows, bounds, hard = held.linearise(plans)
    assert rows.shape[1] == bounds.shape[1] == len(hard)
    direction = torch.randn(plans.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states = held.states(plans)
    later = held.states(plans + step * direction)
    ball = held.constraints[0]
    change = (ball.value(later) - ball.value(states)) / step
    predicted = -(rows @ direction.flatten(1)[..., None])[..., 0]
    assert torch.allclose(change, predicted, atol=3e-3)


def test_a_plan_into_a_hazard_becomes_one_around_or_before_it():
    held = motion()
    plans = torch.zeros(4, ROWS.rows, 2)
    plans[:, :, 0] = 1.0
    plans[:, :, 1] = torch.tensor([-0.1, 0.0, 0.1, 0.4])[:, None]
    assert float(violation(held, plans).min()) > 0.02
    answer = project_plans(plans, held, iterations=8, clip=1.0)
    assert float(answer.violation.max()) < 2e-3
    assert float(answer.plans.abs().max()) <= 1 + 1e-6
    assert not bool(answer.infeasible.any())


def test_plans_that_keep_the_constraints_are_returned_as_they_are():
    held = motion(constraints=[Ball((5.0, 5.0), 0.2)])
    plans = random_plans(3)
    assert torch.equal(project_plans(plans, held, clip=1.0).plans, plans)


def test_a_speed_limit_is_kept_by_slowing_down():
    held = motion(constraints=[Speed(0.5)], state=(0, 0, 0, 0.2, 0, 0))
    plans = torch.zeros(2, ROWS.rows, 2)
    plans[..., 0] = 1.0
    answer = project_plans(plans, held, iterations=6, clip=1.0)
    assert float(answer.violation.max()) < 5e-3
    assert float(held.states(answer.plans)[..., 3].max()) == pytest.approx(0.5, abs=0.01)


def test_a_moving_ball_is_met_where_it_will_be():
    coming = motion(constraints=[Ball((1.2, 0.0), 0.2, velocity=(-1.0, 0.0))], state=(0, 0, 0, 0, 0, 0))
    staying = motion(constraints=[Ball((1.2, 0.0), 0.2)], state=(0, 0, 0, 0, 0, 0))
    still = torch.zeros(1, ROWS.rows, 2)
    assert float(coming.value(still).min()) < float(staying.value(still).min()) - 0.3


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\[B, 10, 2\]"):
        motion().value(torch.zeros(1, 9, 2))
    with pytest.raises(ValueError, match="state must have shape"):
        motion(state=(0, 0))
    with pytest.raises(ValueError, match="at least one constraint"):
        MotionConstraints(dynamics_for("point"), ROWS, torch.zeros(6), [])

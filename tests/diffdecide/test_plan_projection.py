"""Rows of plans, and the projection of plans through the dynamics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffdecide.plan import PlanRows
from diffdecide.plan_projection import PlanProjection
from safety.constraints import Ball
from safety.dynamics import dynamics_for

ROWS = PlanRows(dense=4, strided=8, stride=5)


@given(dense=st.integers(1, 6), strided=st.integers(0, 5), stride=st.integers(1, 5))
def test_rows_and_steps_are_inverses(dense, strided, stride):
    rows = PlanRows(dense=dense, strided=strided, stride=stride)
    values = np.random.default_rng(0).normal(size=(3, rows.rows, 2))
    steps = rows.expand(values)
    assert steps.shape == (3, rows.span, 2)
    np.testing.assert_allclose(rows.contract(steps), values)
    np.testing.assert_array_equal(rows.expand(torch.tensor(values)).numpy(), steps)


def test_rows_are_checked():
    with pytest.raises(ValueError, match="dense"):
        PlanRows(dense=0)
    with pytest.raises(ValueError, match="expected 44 control steps, got 3"):
        ROWS.contract(np.zeros((3, 2)))


def made(agent="point", center=(0.5, 0.04), **options):
    balls = [Ball(center=np.array(center), radius=0.2, margin=0.05)] if center else []
    return PlanProjection(dynamics_for(agent), ROWS, torch.zeros(6), balls, **options)


def ahead(count=1, noise=0.0):
    """Full thrust forwards: through the hazard."""
    generator = torch.Generator().manual_seed(0)
    commands = torch.tensor([1.0, 0.0]).expand(count, ROWS.rows, 2)
    return (commands + noise * torch.randn(commands.shape, generator=generator)).clamp(-1, 1)


def test_a_plan_through_a_hazard_becomes_a_detour():
    projection, commands = made(iterations=12), ahead()
    assert projection.clearance(commands) < -0.1
    corrected = projection(commands)
    assert projection.clearance(corrected) > -0.01
    dynamics = dynamics_for("point")
    path = dynamics.rollout(np.zeros(6), dynamics.command(ROWS.expand(corrected.numpy())))[0]
    assert np.abs(corrected.numpy()).max() <= 1
    gap = np.linalg.norm(path[:, :2] - (0.5, 0.04), axis=1) - 0.2
    assert gap.min() > 0.03  # on every control step, not only where it was linearised


def test_plans_that_keep_clear_are_left_alone():
    projection = made(center=(0.5, 2.0))
    commands = ahead(5, noise=0.1)
    torch.testing.assert_close(projection(commands), commands, rtol=0, atol=0)
    nothing = made(center=None)
    torch.testing.assert_close(nothing(commands), commands, rtol=0, atol=0)


def test_plans_are_corrected_one_by_one():
    """A plan's correction does not depend on its neighbours in the batch."""
    projection, commands = made(), ahead(4, noise=0.3)
    together = projection(commands)
    alone = torch.cat([projection(commands[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("agent", ["point", "car"])
def test_corrections_never_leave_the_actuators(agent):
    """Standing inside the margin, where the tangent says little, a plan is not blown up."""
    projection = made(agent, center=(0.1, 0.01), iterations=5)
    corrected = projection(ahead(8, noise=0.5))
    assert torch.isfinite(corrected).all()
    assert corrected.abs().max() <= 1


def test_clearance_is_differentiable():
    projection = made()
    leaf = (0.5 * ahead(2, noise=0.2)).double().requires_grad_(True)
    projection.state = projection.state.double()
    projection.clearance(leaf).sum().backward()
    step = torch.zeros_like(leaf)
    step[0, 1, 1] = 1e-6
    with torch.no_grad():
        slope = (projection.clearance(leaf + step) - projection.clearance(leaf - step))[0] / 2e-6
    assert float(leaf.grad[0, 1, 1]) == pytest.approx(float(slope), rel=1e-3, abs=1e-6)

"""Guides against closed forms, and what they must never do to a plan."""

import pytest
import torch

from diffdecide.guidance import Guide, apply_guide, combine, cost_guide, value_guide
from diffdecide.sampling import sample
from diffdecide.schedules import ScheduleConfig, alphas_cumprod


def plans(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("slope", [0.3, -0.8])
def test_the_plain_rule_tilts_a_gaussian_exactly(slope):
    """p(x) exp(slope x) for p = N(0, 1) is N(slope, 1)."""
    config = ScheduleConfig(steps=100)
    table = alphas_cumprod(config).float()
    tilt = Guide(lambda clean, t: clean.sum((1, 2)), scale=slope, normalise=False)
    got = sample(
        lambda x, t, c: table[t].sqrt() * x,
        (4000, 2, 1),
        generator=torch.Generator().manual_seed(0),
        scheduler=config,
        guides=[tilt],
        clip=None,
    ).sample
    assert got.mean().item() == pytest.approx(slope, abs=0.05)
    assert got.std().item() == pytest.approx(1.0, rel=0.06)


def test_the_normalised_rule_moves_every_sample_alike_whatever_the_unit():
    clean = plans(3, 4, 2)
    for unit in (1e-3, 1.0, 1e4):
        moved = apply_guide(Guide(lambda x, t, u=unit: u * -x.square().sum((1, 2)), scale=0.2), clean, 5, 0.5) - clean
        torch.testing.assert_close(moved.square().mean((1, 2)).sqrt(), torch.full((3,), 0.1))


def test_a_guide_increases_its_objective_per_sample():
    clean, goal = plans(6, 4, 2), torch.full((4, 2), 0.5)

    def value(plan):
        return -(plan - goal).square().sum((1, 2))

    for guide in (value_guide(value, 0.05), value_guide(value, 0.05, normalise=False)):
        assert (value(apply_guide(guide, clean, 0, 1.0)) > value(clean)).all()


def test_a_cost_guide_spares_the_samples_within_the_limit():
    clean = torch.stack((torch.full((4, 2), 0.1), torch.full((4, 2), 0.9)))
    guide = cost_guide(lambda plan: plan.sum((1, 2)), 0.1, limit=2.0)
    moved = apply_guide(guide, clean, 0, 1.0)
    assert torch.equal(moved[0], clean[0])
    assert (moved[1] < clean[1]).all()


def test_samples_do_not_influence_each_other():
    clean = plans(4, 3, 2)
    guide = value_guide(lambda plan: plan.pow(3).sum((1, 2)))
    torch.testing.assert_close(apply_guide(guide, clean, 0, 1.0)[:1], apply_guide(guide, clean[:1], 0, 1.0))


def test_flat_and_broken_objectives_leave_the_plan_alone():
    clean = plans(3, 4, 2)
    flat = Guide(lambda plan, t: 0 * plan.sum((1, 2)))
    assert torch.equal(apply_guide(flat, clean, 0, 1.0), clean)

    def broken(plan, t):
        return plan.sum((1, 2)) * torch.tensor([1.0, float("nan"), 1.0])

    moved = apply_guide(Guide(broken), clean, 0, 1.0)
    assert torch.equal(moved[1], clean[1])
    assert (moved[[0, 2]] > clean[[0, 2]]).all()


def test_a_guide_acts_only_within_its_times():
    clean = plans(2, 3, 2)
    guide = Guide(lambda plan, t: plan.sum((1, 2)), start=100, stop=500)
    assert torch.equal(apply_guide(guide, clean, 99, 1.0), clean)
    assert torch.equal(apply_guide(guide, clean, 500, 1.0), clean)
    assert not torch.equal(apply_guide(guide, clean, 100, 1.0), clean)


def test_a_plain_callable_is_a_guide_and_sees_the_time():
    seen = []

    def objective(plan, t):
        seen.append(t)
        return plan.sum((1, 2))

    apply_guide(objective, plans(2, 3, 2), 42, 1.0)
    assert seen == [42]


def test_classifier_free_combination():
    conditional, unconditional = plans(2, 3, 2), plans(2, 3, 2, seed=1)
    torch.testing.assert_close(combine(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(combine(conditional, unconditional, 0.0), unconditional)
    torch.testing.assert_close(combine(conditional, unconditional, 3.0), 3 * conditional - 2 * unconditional)


def test_bad_guides_are_named():
    clean = plans(3, 4, 2)
    with pytest.raises(ValueError, match="must return shape"):
        apply_guide(lambda plan, t: plan.sum(), clean, 0, 1.0)
    with pytest.raises(ValueError, match="has no gradient"):
        apply_guide(lambda plan, t: torch.zeros(3), clean, 0, 1.0)
    with pytest.raises(ValueError, match="scale must be finite"):
        Guide(lambda plan, t: plan, scale=float("inf"))
    with pytest.raises(ValueError, match="start < stop"):
        Guide(lambda plan, t: plan, start=5, stop=5)
    with pytest.raises(ValueError, match="must be callable"):
        Guide(3.0)

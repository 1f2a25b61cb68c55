"""The planner: plans are executable, repeat by seed, keep clear, and survive being saved."""

import numpy as np
import pytest
from planner_samples import ENV, GOAL, ROWS, planner, scene, tokens

from diffdecide.plan import PlanRows
from diffdecide.planner import Planner
from diffdecide.planner_config import PlannerConfig
from safety.constraints import Ball


def plan_in(made, now, **options):
    return made.plan(now, tokens(now), GOAL, **({"margin": 0.03} | options))


def test_states_follow_from_the_actions():
    made, now = planner(), scene()
    plan = plan_in(made, now)
    assert plan.actions.shape == (ROWS.span, 2)
    assert np.isfinite(plan.actions).all()
    assert np.abs(made.dynamics.effective(plan.actions)).max() <= 1 + 1e-6
    np.testing.assert_allclose(plan.states, made.dynamics.rollout(now.state, plan.actions), atol=1e-4)
    assert plan.candidates.shape[1:] == (ROWS.span, 2)
    assert len(plan.costs) == len(plan.candidates)
    assert plan.chosen == int(np.argmin(plan.costs))
    np.testing.assert_allclose(plan.candidates[plan.chosen], plan.states[:, :2])
    gap = np.linalg.norm(plan.states[:, :2] - now.positions[1], axis=1) - 0.2
    np.testing.assert_allclose(plan.clearance, gap, atol=1e-4)


def test_plans_repeat_by_seed():
    made, now = planner(), scene()

    def three(seed):
        made.reset(seed=seed)
        return np.array([plan_in(made, now).actions for _ in range(3)])

    first = three(1)
    other = three(2)
    np.testing.assert_array_equal(three(1), first)
    assert not np.array_equal(other, first)


def test_the_plan_before_is_among_the_candidates():
    """A plan that is still good is never lost: nothing that is chosen costs more than going on as before."""
    made, now = planner(project=False), scene(hazards=((3.0, 3.0),))
    first = plan_in(made, now)
    later = scene(hazards=((3.0, 3.0),), state=first.states[3])
    second = plan_in(made, later, elapsed=4)
    kept = first.actions[4:]
    followed = made.dynamics.rollout(later.state, kept)[:, :2]
    # Rows hold several steps each, so the shifted plan agrees over its dense part.
    near = np.linalg.norm(second.candidates[:, 3] - followed[3], axis=-1)
    assert near.min() < 0.02


def test_gaussian_candidates_use_no_network():
    made = planner(proposal="gaussian")
    made.model.denoise = None  # would fail if it were called
    plan = plan_in(made, scene())
    assert len(plan.candidates) >= 8


def test_margins_of_the_plan_are_above_the_filters():
    plan = plan_in(planner(margin_extra=0.02), scene(), margin=0.05)
    assert plan.margin == pytest.approx(0.07)


def test_forbidden_zones_count_as_obstacles():
    zone = Ball(center=np.array([0.3, 0.4]), radius=0.3, margin=0.03)
    made, now = planner(), scene(hazards=((3.0, 3.0),))
    plan = plan_in(made, now, constraints=[zone])
    gap = np.linalg.norm(plan.states[:, :2] - zone.center, axis=1) - 0.3
    assert (plan.clearance <= gap + 1e-4).all()


def test_what_is_saved_is_what_is_loaded(tmp_path):
    made, now = planner(), scene()
    made.save_pretrained(tmp_path, card="# card\n")
    again = Planner.from_pretrained(tmp_path)
    assert again.config == made.config
    made.reset(seed=0)
    again.reset(seed=0)
    # Memory that lies elsewhere may be summed in another order.
    np.testing.assert_allclose(plan_in(made, now).actions, plan_in(again, now).actions, atol=1e-5)
    assert Planner.from_pretrained(tmp_path, candidates=3).config.candidates == 3
    with pytest.raises(ValueError, match="unknown planner settings: candidate$"):
        Planner.from_pretrained(tmp_path, candidate=3)


def test_a_model_of_another_length_is_refused():
    made = planner()
    config = PlannerConfig(agent="point", environments=(ENV,), goal_space="x", rows=PlanRows(dense=6, strided=0))
    with pytest.raises(ValueError, match="plans 8 rows"):
        Planner(made.model, config, made.statistics)


@pytest.mark.parametrize(
    "wrong",
    [{"candidates": 0}, {"steps": 0}, {"warm_share": 1.5}, {"replan": 21}, {"margin_extra": -1}, {"proposal": "?"}],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        planner(**wrong)

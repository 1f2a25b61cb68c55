"""Preferences and the critic among the planner's candidates: they choose, and never at the price of clearance."""

import numpy as np
import pytest
import torch
from planner_samples import GOAL, ROWS, planner, scene, tokens

from diffdecide.planner import Planner
from diffdecide.preference import LIMIT, Preference, rank, standardised
from diffdecide.value import TrajectoryValue

EMPTY = {"hazards": ((3.0, 3.0),)}


def plan_in(made, now):
    made.reset(seed=0)
    return made.plan(now, tokens(now), GOAL, margin=0.03)


def leftwards(scene, states, actions):
    return states[:, -1, 1]


def forwards(scene, states, actions):
    return states[:, -1, 0]


def into_the_hazard(scene, states, actions):
    hazard = torch.as_tensor(scene.positions[1], dtype=states.dtype)
    return -(states[..., :2] - hazard).norm(dim=-1).amin(1)


def test_a_strong_preference_chooses_among_the_same_candidates():
    made, now = planner(project=False), scene(**EMPTY)
    before = plan_in(made, now)
    made.preferences = (Preference(score=leftwards, weight=100.0),)
    after = plan_in(made, now)
    np.testing.assert_array_equal(after.candidates, before.candidates)
    assert after.chosen == int(np.argmax(after.candidates[:, -1, 1]))


def test_no_weight_changes_nothing():
    made, now = planner(), scene()
    before = plan_in(made, now)
    made.preferences = (Preference(score=leftwards, weight=0.0),)
    np.testing.assert_array_equal(plan_in(made, now).actions, before.actions)


def test_a_guide_moves_the_candidates_themselves():
    made, now = planner(project=False), scene(**EMPTY)
    before = plan_in(made, now).candidates[:, -1, 0].mean()
    made.preferences = (Preference(score=forwards, weight=0.0, guidance=20.0),)
    assert plan_in(made, now).candidates[:, -1, 0].mean() > before + 0.1


def test_a_wish_for_hazards_does_not_outweigh_clearance():
    """With the default weight a plan through the hazard stays dearer than any that keeps clear."""
    made, now = planner(candidates=24), scene(hazards=((0.45, 0.0),), state=(0, 0, 0, 1.0, 0, 0))
    made.preferences = (Preference(score=into_the_hazard),)
    plan = plan_in(made, now)
    gaps = np.linalg.norm(plan.candidates - now.positions[1], axis=-1).min(1) - 0.2
    assert (gaps >= plan.margin).any(), "the sample must offer a way out"
    assert plan.clearance.min() >= 0


def test_gains_are_bounded_and_do_not_depend_on_the_unit():
    values = np.array([0.0, 1.0, 2.0, 1e6])
    gains = standardised(values, 0.2)
    assert np.abs(gains).max() <= 0.2 * LIMIT + 1e-12
    np.testing.assert_allclose(standardised(values * 1000 + 5, 0.2), gains, atol=1e-9)
    np.testing.assert_array_equal(standardised(np.full(4, 3.0), 0.2), np.zeros(4))


def test_a_score_that_is_not_finite_does_not_win():
    states, actions = np.zeros((3, 2, 6)), np.zeros((3, 2, 2))
    values = rank(lambda *_: torch.tensor([1.0, float("inf"), float("nan")]), scene(), states, actions)
    np.testing.assert_array_equal(values, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"guidance": float("nan")}])
def test_strengths_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Preference(score=leftwards, **wrong)


def critic():
    torch.manual_seed(1)
    return TrajectoryValue(ROWS.rows, 2, 15, 22, 32, context_dim=16, hidden=16, tokens_options={"width": 16})


def with_critic(**settings):
    base = planner(project=False, **settings)
    return Planner(base.model, base.config, base.statistics, critic=critic())


def test_the_critic_ranks_where_it_is_given_a_weight(tmp_path):
    made, now = with_critic(), scene(**EMPTY)
    made.save_pretrained(tmp_path)
    plain = plan_in(made, now)
    made = Planner.from_pretrained(tmp_path, value_weight=1000.0)
    valued = plan_in(made, now)
    np.testing.assert_allclose(valued.candidates, plain.candidates, atol=1e-5)
    assert not np.allclose(valued.costs, plain.costs)
    assert not (tmp_path / "critic" / "config.json").read_text().count(str(tmp_path))


def test_a_weight_without_a_critic_is_refused():
    with pytest.raises(ValueError, match="needs a critic"):
        planner(value_weight=0.1)

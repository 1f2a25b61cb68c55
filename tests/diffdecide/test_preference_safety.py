"""Preferences choose among plans that keep their distance; they never buy a plan that does not."""

import numpy as np
import pytest
import torch
from planner_samples import GOAL, planner, scene, tokens

from diffdecide.plan import PlanRows
from diffdecide.planner_config import PlannerConfig
from diffdecide.preference import Preference, SituatedScore

MARGIN = 0.03


def loves_hazards(where, states, actions):
    hazards = torch.as_tensor(where.positions[1:], dtype=states.dtype)
    return -(states[:, :, None, :2] - hazards).norm(dim=-1).amin((1, 2))


def near():
    """A hazard right ahead, close enough that some candidates run into it."""
    return scene(goal=(1.2, 0.0), hazards=((0.42, 0.0),), state=(0, 0, 0, 0.9, 0, 0))


@pytest.mark.parametrize("seed", range(6))
def test_a_reward_that_loves_hazards_gets_no_plan_inside_the_margin(seed):
    where = near()
    chosen = {}
    for name, wishes in (("none", ()), ("absurd", (Preference(score=loves_hazards, weight=100.0),))):
        made = planner(candidates=24, project=False)
        made.preferences = wishes
        made.reset(seed=seed)
        chosen[name] = made.plan(where, tokens(where), GOAL, margin=MARGIN)
    clear = chosen["none"].clearance.min() >= chosen["none"].margin - 0.002
    if clear:
        assert chosen["absurd"].clearance.min() >= chosen["absurd"].margin - 0.002
    else:  # nothing kept the distance: then the price of coming near decides alone
        assert chosen["absurd"].chosen == chosen["none"].chosen


def test_the_absurd_reward_would_choose_otherwise_without_that_rule():
    where = near()
    made = planner(candidates=24, project=False, clearance_weight=0.0)
    made.preferences = (Preference(score=loves_hazards, weight=100.0),)
    assert made.plan(where, tokens(where), GOAL, margin=MARGIN).clearance.min() < 0


def test_without_the_way_the_choice_is_the_preferences():
    where = scene(hazards=((3.0, 3.0),))
    made = planner(task_weight=0.0, project=False)
    made.preferences = (Preference(score=lambda s, states, actions: states[:, -1, 1]),)
    plan = made.plan(where, tokens(where), GOAL, margin=MARGIN)
    assert plan.candidates[plan.chosen, -1, 1] == pytest.approx(plan.candidates[:, -1, 1].max())
    made.preferences = ()
    made.reset(seed=0)
    assert not made.plan(where, tokens(where), GOAL, margin=MARGIN).costs.any()  # nothing near, nowhere to go


@pytest.mark.parametrize("name", ["task_weight", "clearance_weight"])
def test_weights_of_the_plan_cost_are_checked(name):
    with pytest.raises(ValueError, match=name):
        PlannerConfig(agent="point", environments=("x",), goal_space="x", **{name: -1.0})


def test_a_score_can_ask_for_the_situation():
    class Seen:
        def __init__(self, ego=None):
            self.ego = ego

        def at(self, situation):
            return Seen(situation["ego"])

        def __call__(self, where, states, actions):
            assert self.ego.shape == (1, 15)
            return actions.sum((1, 2)) + self.ego.sum()

    assert isinstance(Seen(), SituatedScore)
    where = scene()
    made = planner()
    made.preferences = (Preference(score=Seen(), guidance=0.1),)
    assert made.plan(where, tokens(where), GOAL, margin=MARGIN).costs.std() > 0


def test_rows_contract_tensors_as_they_contract_arrays():
    rows = PlanRows(dense=3, strided=2, stride=4)
    actions = np.random.default_rng(0).normal(size=(2, rows.span, 2)).astype(np.float32)
    ours = rows.contract(torch.from_numpy(actions))
    np.testing.assert_allclose(ours.numpy(), rows.contract(actions), atol=1e-6)
    np.testing.assert_allclose(rows.contract(rows.expand(ours)).numpy(), ours.numpy(), atol=1e-6)

"""The sampling MPC, the way around obstacles it is scored by, and what caution means in metres."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.caution import DEFAULT_MARGIN, PLAN_EXTRA, margin_for
from safety.controllers.geodesic import geodesic_field
from safety.controllers.judge import FieldCache, PlanJudge
from safety.controllers.mpc import MPCConfig, SamplingMPC
from safety.controllers.objective import SubGoal, objective
from safety.controllers.proportional import ProportionalController
from safety.dynamics import dynamics_for
from safety.scene import KIND_ID, Scene
from safety.tasks.spec import CAUTIONS

NONE = np.zeros((0, 2)), np.zeros(0)


def scene(goal, hazards=(), state=(0, 0, 0, 0, 0, 0), kind="goal"):
    positions = np.array([goal, *hazards], dtype=float)
    count = len(positions)
    return Scene(
        state=np.array(state, dtype=float),
        positions=positions,
        velocities=np.zeros((count, 2)),
        kinds=np.array([KIND_ID[kind]] + [KIND_ID["hazards"]] * (count - 1)),
        radii=np.array([0.3] + [0.2] * (count - 1)),
        sigma=np.zeros(count),
    )


@given(x=st.floats(-2, 2), y=st.floats(-2, 2))
def test_on_free_floor_the_way_is_the_straight_line(x, y):
    field = geodesic_field(np.array([0.3, -0.2]), *NONE)
    straight = np.hypot(x - 0.3, y + 0.2)
    assert field(np.array([[x, y]]))[0] == pytest.approx(straight, abs=0.05 + 0.04 * straight)


def test_around_a_disc_the_way_is_longer_and_known_in_closed_form():
    """Two tangents and an arc."""
    radius, distance = 0.4, 1.0
    field = geodesic_field(np.array([distance, 0.0]), np.zeros((1, 2)), np.array([radius]))
    tangent = np.sqrt(distance**2 - radius**2)
    arc = radius * (np.pi - 2 * np.arccos(radius / distance))
    assert field(np.array([[-distance, 0.0]]))[0] == pytest.approx(2 * tangent + arc, rel=0.05)


def test_behind_a_wall_of_discs_the_way_leads_around_it():
    wall = np.array([[0.0, y] for y in np.arange(-0.6, 0.61, 0.2)])
    field = geodesic_field(np.array([1.0, 0.0]), wall, np.full(len(wall), 0.2))
    along = field(np.array([[-0.5, 0.0], [-0.5, 0.5], [-0.5, 0.9], [0.5, 0.9]]))
    assert along[0] > along[1] > along[2] > along[3]


def test_who_is_inside_a_disc_still_finds_out():
    field = geodesic_field(np.array([2.0, 0.0]), np.zeros((1, 2)), np.array([0.5]))
    values = field(np.array([[0.0, 0.0], [0.2, 0.0], [0.4, 0.0], [0.6, 0.0]]))
    assert (np.diff(values) < 0).all()


def test_a_field_is_built_once_while_nothing_moves():
    cache, target, centers = FieldCache(), np.array([1.0, 0.0]), np.array([[0.0, 1.0], [0.5, 0.5]])
    radii = np.full(2, 0.2)
    first = cache.get(target, centers, radii)
    assert cache.get(target, centers[::-1] + 0.001, radii) is first  # the order of obstacles does not matter
    assert cache.get(target + 0.1, centers, radii) is not first


def test_coming_too_close_costs_more_than_going_around():
    now = scene((1.5, 0.0), [(0.7, 0.0)])
    judge = PlanJudge(objective(now, SubGoal(target="goal")), FieldCache(), margin=0.05)
    time = np.linspace(0, 1, 40)[:, None]
    through = np.concatenate([1.5 * time, 0 * time], axis=1)
    around = np.concatenate([1.5 * time, 0.45 * np.sin(np.pi * time)], axis=1)
    states = np.zeros((2, 40, 6))
    states[:, :, :2] = through, around
    costs = judge.cost(states)
    assert costs[1] < costs[0]
    np.testing.assert_allclose(judge.clearance(states)[0].min(), -0.2, atol=0.02)


@pytest.mark.parametrize("agent", ["point", "car"])
def test_the_mpc_drives_around_what_stands_in_its_way(agent):
    dynamics = dynamics_for(agent)
    mpc = SamplingMPC(dynamics, MPCConfig(candidates=120, replan=4))
    mpc.reset(seed=0)
    now, way = scene((1.4, 0.0), [(0.7, 0.02)]), []
    for _ in range(220):
        state = dynamics.rollout(now.state, np.asarray(mpc.act(now, SubGoal(target="goal")), dtype=float)[None])[0]
        way.append(state[:2])
        now = scene((1.4, 0.0), [(0.7, 0.02)], state)
        if np.hypot(*(state[:2] - (1.4, 0.0))) < 0.3:
            break
    else:
        pytest.fail("the goal was not reached")
    assert (np.linalg.norm(np.array(way) - (0.7, 0.02), axis=1) - 0.2).min() > 0.0


def test_the_mpc_repeats_by_seed():
    now = scene((0.9, 0.5), [(0.5, 0.2)])
    mpc = SamplingMPC(dynamics_for("point"), MPCConfig(candidates=40))
    plans = []
    for seed in (1, 1):
        mpc.reset(seed=seed)
        plans.append(mpc.plan(now, SubGoal(target="goal")))
    np.testing.assert_array_equal(plans[0], plans[1])
    assert plans[0].shape == (mpc.config.horizon, 2)


def test_in_a_zone_it_comes_to_stay():
    dynamics, mpc = dynamics_for("point"), SamplingMPC(dynamics_for("point"), MPCConfig(candidates=120, replan=4))
    mpc.reset(seed=0)
    now, inside = scene((0.6, 0.0), kind="red_zone"), []
    for _ in range(160):
        action = mpc.act(now, SubGoal(target="red_zone", dwell=True))
        state = dynamics.rollout(now.state, np.asarray(action, dtype=float)[None])[0]
        now = scene((0.6, 0.0), state=state, kind="red_zone")
        inside.append(np.hypot(*(state[:2] - (0.6, 0.0))) < 0.3)
    assert all(inside[-60:])


@pytest.mark.parametrize("agent", ["point", "car"])
def test_the_proportional_controller_reaches_the_target(agent):
    dynamics, controller = dynamics_for(agent), ProportionalController(dynamics_for(agent))
    now = scene((-0.8, 0.6))
    for _ in range(300):
        action = np.asarray(controller.act(now, SubGoal(target="goal")), dtype=float)
        now = scene((-0.8, 0.6), state=dynamics.rollout(now.state, action[None])[0])
        if np.hypot(*(now.state[:2] - (-0.8, 0.6))) < 0.3:
            return
    pytest.fail("the goal was not reached")


def test_avoided_zones_are_obstacles_and_other_zones_are_not():
    positions = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    kinds = np.array([KIND_ID[f"{name}_zone"] for name in ("red", "green", "blue")])
    now = Scene(np.zeros(6), positions, np.zeros((3, 2)), kinds, np.full(3, 0.3), np.zeros(3))
    goal = objective(now, SubGoal(target="red_zone", dwell=True, avoid=("green_zone",)))
    np.testing.assert_array_equal(goal.target, [1.0, 0.0])
    np.testing.assert_array_equal(goal.hard_centers, [[0.0, 1.0]])
    np.testing.assert_array_equal(goal.soft_centers, [[0.0, -1.0]])


@given(operator=st.floats(0, 1), caution=st.sampled_from(CAUTIONS))
def test_words_only_ever_add_to_the_margin(operator, caution):
    assert margin_for(caution, operator) >= operator
    assert margin_for("rush", operator) == operator
    assert margin_for("rush", operator) <= margin_for("normal", operator) < margin_for("careful", operator)


def test_margins_and_their_errors():
    assert margin_for("rush") == DEFAULT_MARGIN
    assert PLAN_EXTRA > 0  # plans keep more than the filter, so that it has nothing to do
    with pytest.raises(ValueError, match="caution must be one of"):
        margin_for("reckless")
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="margin must be"):
            margin_for("rush", wrong)


@pytest.mark.parametrize("wrong", [{"knots": 0}, {"replan": 0}, {"elites": 50, "candidates": 20}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MPCConfig(**wrong)


def test_what_is_far_away_does_not_move_the_map_off_the_target():
    target, near = np.array([0.0, 0.0]), np.array([[0.5, 0.0]])
    field = geodesic_field(target, near, np.array([0.2]))
    with_ghost = geodesic_field(target, np.vstack([near, [[40.0, 10.0]]]), np.array([0.2, 0.3]))
    points = np.array([[1.0, 0.0], [-0.7, 0.4]])
    assert with_ghost(points) == pytest.approx(field(points))

"""Every task told as driving: what becomes the goal, what a hazard, and that the true tasks can be done that way."""

import math

import numpy as np
import pytest

from safety import envs, truth
from safety.controllers.errand import errand
from safety.controllers.mpc import MPCConfig, SamplingMPC
from safety.dynamics import dynamics_for
from safety.scene import KIND_ID, Scene
from safety.tasks.driving import DrivingConfig, DrivingView
from safety.walls import CIRCLE_LIMIT, Walls


def scene(*objects, state=(0, 0, 0, 0, 0, 0)):
    """Objects as (kind, x, y, radius) or (kind, x, y, radius, vx, vy)."""
    rows = [(*item, 0, 0)[:6] for item in objects]
    return Scene(
        state=np.array(state, dtype=float),
        positions=np.array([row[1:3] for row in rows], dtype=float).reshape(-1, 2),
        velocities=np.array([row[4:6] for row in rows], dtype=float).reshape(-1, 2),
        kinds=np.array([KIND_ID[row[0]] for row in rows], dtype=np.int64),
        radii=np.array([row[3] for row in rows], dtype=float),
        sigma=np.zeros(len(rows)),
    )


def told(task, seen, **settings):
    return DrivingView(envs.spec(f"SafetyPoint{task}-v0"), DrivingConfig(**settings)).see(seen)


def goal_of(driven):
    (index,) = driven.of_kind("goal")
    return driven.positions[index]


def test_goal1_is_left_as_it_is_and_goal2_charges_for_vases():
    seen = scene(("goal", 1, 0, 0.3), ("hazards", 0, 1, 0.2), ("vases", -1, 0, 0.3))
    assert told("Goal1", seen) is seen
    driven = told("Goal2", seen)
    assert goal_of(driven).tolist() == [1, 0]
    assert sorted(driven.positions[driven.of_kind("hazards")].tolist()) == [[-1, 0], [0, 1]]
    assert not len(driven.of_kind("vases"))


def test_the_lit_button_is_the_goal_and_gremlins_are_met_where_they_will_be():
    seen = scene(
        ("goal", 1, 0, 0.2), ("buttons", 1, 0.01, 0.26), ("buttons", -1, 0, 0.26), ("gremlins", 0, 1, 0.3, 0.2, 0.0)
    )
    driven = told("Button1", seen, foresight=0.5)
    hazards = np.array(sorted(driven.positions[driven.of_kind("hazards")].tolist()))
    # In half a second at 1 rad/s it has gone half a radian along a circle of 0.2 m, clockwise.
    later = [0.2 * np.sin(0.5), 1 - 0.2 * (1 - np.cos(0.5))]
    np.testing.assert_allclose(hazards, [[-1, 0], [0, 1], later], atol=1e-12)
    assert goal_of(driven).tolist() == [1, 0]


def test_pushing_goes_behind_the_box_first_and_ends_where_the_line_is_lost():
    view = DrivingView(envs.spec("SafetyPointPush1-v0"))
    things = (("push_box", 1, 0, 0.44), ("goal", 2, 0, 0.3))
    beside = view.see(scene(*things, state=(1, 1, 0, 0, 0, 0)))
    assert goal_of(beside) == pytest.approx([0.5, 0])
    assert len(beside.of_kind("hazards")) == 1  # the box itself, to go round
    behind = view.see(scene(*things, state=(0.5, 0, 0, 0, 0, 0)))
    assert goal_of(behind) == pytest.approx([1.5, 0])
    assert not len(behind.of_kind("hazards"))
    slipping = view.see(scene(*things, state=(0.6, 0.2, 0, 0, 0, 0)))
    assert goal_of(slipping) == pytest.approx([1.5, 0])  # begun, so it may be a little off
    lost = view.see(scene(*things, state=(0.8, 0.5, 0, 0, 0, 0)))
    assert goal_of(lost) == pytest.approx([0.5, 0])


def test_the_box_is_pushed_past_a_hazard_not_through_it():
    seen = scene(("push_box", 1, 0, 0.44), ("goal", 3, 0, 0.3), ("hazards", 2, 0.1, 0.3), state=(0.5, 0, 0, 0, 0, 0))
    place = goal_of(told("Push1", seen))
    assert place[1] > 0.05  # behind it on the hazard's side: pushed from there, the box goes by on the other
    way = np.array([1.0, 0.0]) - place
    way /= np.linalg.norm(way)
    offset = np.array([1.0, 0.1])
    assert abs(way[0] * offset[1] - way[1] * offset[0]) >= 0.3 + 0.14


def test_going_round_aims_ahead_on_the_circle_and_inside_the_walls():
    spec = envs.spec("SafetyPointCircle1-v0")
    view = DrivingView(spec, DrivingConfig(lead=0.5, wall_gap=0.2))
    top = view.see(scene(("circle", 0, 0, 1.5), state=(0, 1.5, 0, 0, 0, 0)), ())
    assert goal_of(top) == pytest.approx([-1.5 * math.sin(0.5), 1.5 * math.cos(0.5)])
    side = view.see(scene(("circle", 0, 0, 1.5), state=(1.0, -0.6, 0, 0, 0, 0)), Walls(spec).world())
    assert goal_of(side)[0] == pytest.approx(CIRCLE_LIMIT - 0.2)


def test_without_its_target_a_task_has_no_goal_and_tasks_without_geometry_are_refused():
    assert not len(told("Goal2", scene(("hazards", 0, 1, 0.2))).of_kind("goal"))
    assert not len(told("Circle1", scene()).of_kind("goal"))
    assert not len(told("Push1", scene(("goal", 0, 1, 0.2))).of_kind("goal"))
    with pytest.raises(ValueError, match="neither a goal nor a circle"):
        DrivingView(envs.spec("SafetySwimmerVelocity-v1"))
    with pytest.raises(ValueError, match="cone"):
        DrivingConfig(cone=(0.5, 0.2))
    with pytest.raises(ValueError, match="lead"):
        DrivingConfig(lead=math.nan)


@pytest.mark.parametrize(("task", "steps", "least"), [("Push1", 400, 0.8), ("Circle1", 200, 8.0), ("Goal2", 300, 3.0)])
def test_the_mpc_does_other_tasks_by_driving(task, steps, least):
    env, spec = envs.make(f"SafetyPoint{task}-v0"), envs.spec(f"SafetyPoint{task}-v0")
    view, walls = DrivingView(spec), Walls(spec).world()
    mpc = SamplingMPC(dynamics_for("point"), MPCConfig(candidates=100, replan=5))
    env.reset(seed=5001)
    total = cost = 0.0
    for _ in range(steps):
        action = mpc.act(*errand(view, truth.scene(env), walls, margin=0.05))
        _, reward, _, _, info = env.step(action.astype(np.float64))
        total, cost = total + float(reward), cost + info["cost"]
    assert cost == 0
    assert total > least

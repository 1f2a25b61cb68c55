"""Moving obstacles, walls, dropped readings: the filter on scenes whose answer is known."""

import numpy as np
import pytest

from safety.coming import MotionConfig
from safety.constraints import HalfSpace
from safety.dynamics import dynamics_for
from safety.layout import EnvSpec, ObservationLayout
from safety.moving_filter import MovingFilter
from safety.scene import KIND_ID, Scene
from safety.scene_memory import MemoryConfig, SceneMemory
from safety.walls import CIRCLE_LIMIT, Walls

POINT, CAR = dynamics_for("point"), dynamics_for("car")


def scene(objects=(), state=(0, 0, 0, 0, 0, 0)):
    """Objects as (kind, x, y, vx, vy, radius)."""
    rows = np.array([entry[1:] for entry in objects], dtype=np.float64).reshape(-1, 5)
    return Scene(
        state=np.array(state, dtype=np.float64),
        positions=rows[:, :2],
        velocities=rows[:, 2:4],
        kinds=np.array([KIND_ID[entry[0]] for entry in objects], dtype=np.int64),
        radii=rows[:, 4],
        sigma=np.zeros(len(rows)),
    )


def drive(filter_, state, wanted, steps, objects=lambda time: (), walls=()):
    """Roll the model forward under the filter; positions [steps, 2] and the reports."""
    state, path, reports = np.array(state, dtype=np.float64), [], []
    for step in range(steps):
        report = filter_.filter(scene(objects(step * filter_.dynamics.dt), state), wanted, walls=walls)
        state = filter_.dynamics.rollout(state, report.action[None])[0]
        path.append(state[:2])
        reports.append(report)
    return np.array(path), reports


@pytest.mark.parametrize("dynamics", [POINT, CAR], ids=["point", "car"])
def test_a_wall_stops_the_agent_at_the_margin(dynamics):
    wall = HalfSpace((1.0, 0.0), 0.8)
    filter_ = MovingFilter(dynamics, margin=0.05)
    forward = dynamics.command(dynamics.motors(np.float64(1.0), np.float64(0.0)))
    heading = -dynamics.forward_offset
    path, reports = drive(filter_, (0, 0, heading, 0, 0, 0), forward, 120, walls=[wall])
    assert 0.6 < path[:, 0].max() < 0.75 + 2e-3
    assert not any(report.infeasible for report in reports)
    assert any(report.intervened for report in reports)


@pytest.mark.parametrize("dynamics", [POINT, CAR], ids=["point", "car"])
def test_the_agent_gets_out_of_the_way_of_what_comes_along(dynamics):
    def coming(time):
        return [("hazards", 1.2 - 0.4 * time, 0.05, -0.4, 0.0, 0.3)]  # gremlins do not go straight

    stay = np.zeros(2)
    filter_ = MovingFilter(dynamics, margin=0.02)
    steps = int(3.2 / dynamics.dt)
    path, reports = drive(filter_, (0, 0, np.pi / 2 - dynamics.forward_offset, 0, 0, 0), stay, steps, coming)
    gaps = [
        np.hypot(*(point - np.array([1.2 - 0.4 * (index + 1) * dynamics.dt, 0.05]))) - 0.3
        for index, point in enumerate(path)
    ]
    assert min(gaps) > 0
    assert any(report.intervened for report in reports)
    assert np.abs(path).max() > 0.1  # braking alone would have been run over


def test_an_obstacle_that_goes_away_is_not_waited_for():
    leaving = scene([("hazards", 0.5, 0.0, 0.6, 0.0, 0.3)], state=(0, 0, 0, 0.3, 0, 0))
    coming = scene([("hazards", 0.5, 0.0, -0.6, 0.0, 0.3)], state=(0, 0, 0, 0.3, 0, 0))
    wanted = POINT.command(np.array([0.3, 0.0]))
    assert not MovingFilter(POINT).filter(leaving, wanted).intervened
    assert MovingFilter(POINT).filter(coming, wanted).intervened


def test_what_the_task_charges_for_is_hard():
    ahead = scene([("vases", 0.45, 0.0, 0.0, 0.0, 0.3)], state=(0, 0, 0, 1.0, 0, 0))
    wanted = POINT.command(np.array([1.0, 0.0]))
    assert not MovingFilter(POINT, hard_kinds=("hazards",)).filter(ahead, wanted).intervened
    assert MovingFilter(POINT, hard_kinds=("hazards", "vases")).filter(ahead, wanted).intervened


def test_the_goal_button_may_be_touched_and_the_others_not():
    near, wanted = (0, 0, 0, 1.0, 0, 0), POINT.command(np.array([1.0, 0.0]))
    goal = scene([("buttons", 0.4, 0, 0, 0, 0.26), ("goal", 0.42, 0, 0, 0, 0.1)], near)
    other = scene([("buttons", 0.4, 0, 0, 0, 0.26), ("goal", 2.0, 0, 0, 0, 0.1)], near)
    assert not MovingFilter(POINT).filter(goal, wanted).intervened
    assert MovingFilter(POINT).filter(other, wanted).intervened


def test_a_hard_obstacle_outranks_a_forbidden_zone_while_something_moves():
    from safety.constraints import Ball

    held = scene([("gremlins", 0.7, 0.0, -0.5, 0.0, 0.3)], state=(0, 0, 0, 0.0, 0, 0))
    report = MovingFilter(POINT).filter(held, np.zeros(2), soft=[Ball((-0.35, 0.0), 0.3, rank="soft")])
    assert not report.infeasible
    assert np.isfinite(report.action).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="hard_kinds"):
        MovingFilter(POINT, hard_kinds=("dragons",))
    with pytest.raises(ValueError, match="margin"):
        MovingFilter(POINT, margin=-1)
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        MovingFilter(POINT).filter(scene([("gremlins", 0.5, 0, -1, 0, 0.3)]), np.zeros(3))
    with pytest.raises(ValueError, match="finite action"):
        MovingFilter(POINT).filter(scene([("gremlins", 0.5, 0, -1, 0, 0.3)]), np.array([np.nan, 0]))
    with pytest.raises(ValueError, match="acceleration"):
        MotionConfig(acceleration=float("nan"))
    spec = EnvSpec("SafetyAntVelocity-v1", "ant", 0.05, 1000, 8, 27)
    with pytest.raises(ValueError, match="learned filter"):
        MovingFilter.for_spec(spec)


def test_memory_keeps_what_vanished_and_forgets_it_in_the_end():
    memory = SceneMemory(("hazards",), 0.02, MemoryConfig(patience=3, settle=2, growth=0.01))
    full, empty = scene([("hazards", 0.5, 0.1, 0, 0, 0.2), ("goal", 1, 1, 0, 0, 0.3)]), scene()
    for _ in range(3):
        assert memory.recall(full) is full
    kept = memory.recall(empty)
    assert kept.positions.tolist() == [[0.5, 0.1]]
    assert kept.sigma.tolist() == pytest.approx([0.01])
    assert memory.remembered == 1
    assert memory.recall(empty).sigma.tolist() == pytest.approx([0.02])
    memory.recall(empty)
    assert len(memory.recall(empty).positions) == 0


def test_memory_does_not_double_what_it_sees_nor_keep_what_flickered():
    memory = SceneMemory(("hazards",), 0.02, MemoryConfig(settle=3))
    memory.recall(scene([("hazards", 0.5, 0.0, 0, 0, 0.2)]))
    assert len(memory.recall(scene()).positions) == 0
    for shift in range(20):
        moved = memory.recall(scene([("hazards", 0.5 + 0.005 * shift, 0.0, 0, 0, 0.2)]))
        assert len(moved.positions) == 1


def circle_spec(env_id="SafetyPointCircle1-v0"):
    sensors = ("accelerometer", "velocimeter", "gyro", "magnetometer")
    entries = {name: (3 * index, 3 * index + 3) for index, name in enumerate(sensors)}
    layout = ObservationLayout(entries | {"circle_lidar": (12, 28)})
    return EnvSpec(env_id, "point", 0.02, 500, 2, 28, layout, 3.0, {"circle": 1.5}, ("sigwalls",))


def test_walls_are_found_from_the_circle_and_the_magnetometer():
    walls = Walls(circle_spec())
    assert [wall.offset for wall in walls.world()] == [CIRCLE_LIMIT, CIRCLE_LIMIT]
    # The agent stands at (0.5, 0.2) with world yaw 0.7 at reset, which is the origin of its odometric frame.
    yaw, position = 0.7, np.array([0.5, 0.2])
    turn = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    observation = np.zeros(28)
    observation[9:12] = [-0.5 * np.sin(yaw), -0.5 * np.cos(yaw), 0]
    decoded = scene([("circle", *(turn @ -position), 0, 0, 1.5)])
    found = walls.decoded(decoded, observation)
    room = sorted(float(wall.value(np.zeros(2))) for wall in found)
    assert room == pytest.approx([CIRCLE_LIMIT - 0.5, CIRCLE_LIMIT + 0.5], abs=1e-6)
    assert len(walls.decoded(scene(), observation)) == 2  # remembered while the circle is out of view
    walls.reset()
    assert walls.decoded(scene(), observation) == ()


def test_circle2_has_four_walls_and_goal_tasks_none():
    assert len(Walls(circle_spec("SafetyPointCircle2-v0")).world()) == 4
    spec = circle_spec()
    assert Walls(EnvSpec("SafetyPointGoal1-v0", "point", 0.02, 1000, 2, 28, spec.layout, 3.0)).world() == ()


def test_whoever_leans_on_a_moving_obstacle_does_not_creep_into_it():
    """Driving alongside and steering at it in every step: what recovery gives away in one step would add up."""

    def beside(time):
        return [("gremlins", 0.35 * time, 0.0, 0.35, 0.0, 0.3)]

    filter_ = MovingFilter(POINT, margin=0.03)
    state, gaps = np.array([0.0, -0.325, 1.2, 0.35, 0.0, 0.0]), []
    for step in range(120):
        report = filter_.filter(scene(beside(step * POINT.dt), state), POINT.command(np.array([1.0, 0.5])))
        state = POINT.rollout(state, report.action[None])[0]
        gaps.append(np.hypot(*(state[:2] - (0.35 * (step + 1) * POINT.dt, 0.0))) - 0.3)
    assert min(gaps) > 0.005

"""Evading what goes in circles: rooms that close, places where one may stay, ways out that last."""

import numpy as np
import pytest

from safety.coming import Coming, MotionConfig
from safety.dynamics import dynamics_for
from safety.moving_filter import MovingFilter
from safety.scene import KIND_ID, Scene

POINT, CAR = dynamics_for("point"), dynamics_for("car")
CIRCLE, SPEED, BODY = 0.35, 0.35, 0.3  # m, m/s of a gremlin; m to its middle at which the agent touches it


def gremlin(time, middle=(0.0, 0.0), phase=0.0):
    """Position and velocity of a gremlin, clockwise at 1 rad/s."""
    angle = phase - time
    return (
        np.array(middle) + CIRCLE * np.array([np.cos(angle), np.sin(angle)]),
        SPEED * np.array([np.sin(angle), -np.cos(angle)]),
    )


def scene(state, movers, standing=()):
    places = [place for place, _ in movers] + [np.array(place) for place in standing]
    speeds = [speed for _, speed in movers] + [np.zeros(2)] * len(standing)
    kinds = [KIND_ID["gremlins"]] * len(movers) + [KIND_ID["hazards"]] * len(standing)
    return Scene(
        state=state,
        positions=np.array(places),
        velocities=np.array(speeds),
        kinds=np.array(kinds),
        radii=np.full(len(kinds), BODY),
        sigma=np.zeros(len(kinds)),
    )


def drive(dynamics, state, wanted, seconds, phase=0.0, standing=(), middle=(0.0, 0.0)):
    """Follow `wanted(state)` behind the filter; positions [T, 2] and gaps [T, N] to the gremlin and what stands."""
    filter_ = MovingFilter(dynamics, margin=0.02)
    state, path, gaps = np.array(state, dtype=np.float64), [], []
    for step in range(round(seconds / dynamics.dt)):
        now = scene(state, [gremlin(step * dynamics.dt, middle, phase)], standing)
        report = filter_.filter(now, wanted(state))
        state = dynamics.rollout(state, report.action[None])[0]
        later = scene(state, [gremlin((step + 1) * dynamics.dt, middle, phase)], standing)
        gaps.append(np.linalg.norm(later.positions - state[:2], axis=1) - BODY)
        path.append(state[:2])
    return np.array(path), np.array(gaps)


@pytest.mark.parametrize("dynamics", [POINT, CAR], ids=["point", "car"])
def test_whoever_stands_on_the_circle_leaves_before_it_is_run_over(dynamics):
    path, gaps = drive(dynamics, (0.0, -CIRCLE, 0, 0, 0, 0), lambda state: np.zeros(2), 6.5, phase=np.pi / 2)
    assert gaps.min() > 0
    assert abs(np.hypot(*path[-1]) - CIRCLE) > BODY or np.hypot(*path[-1]) < 0.06


def test_whoever_wants_to_stay_on_the_circle_is_kept_off_it():
    def towards_circle(state):
        heading = np.arctan2(-state[1], CIRCLE - state[0])
        turn = (heading - state[2] + np.pi) % (2 * np.pi) - np.pi
        return POINT.command(np.array([np.cos(turn), np.clip(2 * turn, -1, 1)]))

    _, gaps = drive(POINT, (1.5, 0, np.pi, 0, 0, 0), towards_circle, 13.0, phase=1.0)
    assert gaps.min() > 0


def test_no_way_leads_between_what_stands_and_what_comes():
    """A narrow lane that the circle closes once per round."""
    standing = [(0.0, -1.05), (0.7, -1.05)]

    def ahead(state):
        turn = (0.0 - state[2] + np.pi) % (2 * np.pi) - np.pi
        return POINT.command(np.array([0.5, np.clip(2 * turn, -1, 1)]))

    _, gaps = drive(POINT, (-1.0, -0.70, 0, 0, 0, 0), ahead, 13.0, phase=2.0, standing=standing)
    assert gaps.min() > 0


def test_places_to_stay_are_those_that_no_circle_comes_by():
    place, speed = gremlin(0.3)
    coming = Coming(
        centers=np.array([place, [5.0, 5.0]]),
        velocities=np.array([speed, [0.0, 0.0]]),
        rates=np.array([-1.0, 0.0]),
        wandering=np.zeros(2),
        radii=np.array([0.2, 0.2]),
        hard=np.ones(2, dtype=bool),
        motion=MotionConfig(turning_acceleration=0.0),
    )
    points = np.array([[0.0, 0.0], [CIRCLE, 0.0], [0.0, -1.0]])
    # No doubt, no guess: without an acceleration nothing is mistaken.
    stay = coming.standing(points)
    np.testing.assert_allclose(stay[:, 0], [CIRCLE - 0.2, -0.2, 1 - CIRCLE - 0.2], atol=1e-9)
    assert np.isinf(stay[:, 1]).all()
    times = np.linspace(0, 2 * np.pi, 400)
    way = np.repeat(points[:, None], len(times), axis=1)
    np.testing.assert_allclose(coming.gaps(way, times)[:, :, 0].min(1), stay[:, 0], atol=1e-3)


def test_a_gremlin_whose_velocity_is_not_known_may_come_from_where_it_is():
    """Decoded for the first time it has none; taken for something that stands it would run into the agent."""
    near, stay = np.array([0.33, 0.0]), np.zeros(2)
    report = MovingFilter(POINT, margin=0.02).filter(scene(np.zeros(6), [(near, np.zeros(2))]), stay)
    assert report.intervened
    assert not MovingFilter(POINT, margin=0.02).filter(scene(np.zeros(6), [], standing=[near]), stay).intervened


def test_the_way_out_of_one_thing_does_not_lead_into_another():
    """In touch with a disc, another close behind: out sideways, not back into the other."""
    standing = [(0.27, 0.0), (-0.33, 0.0)]
    start = (0.0, 0.0, 0.0, -0.2, 0.0, 0.0)
    path, gaps = drive(POINT, start, lambda state: np.zeros(2), 3.0, standing=standing, middle=(0.0, 1.0))
    assert gaps[:, 2].min() > -0.005  # nothing but the margin is undercut
    assert gaps[-1, 1] > 0
    assert np.abs(path[-1, 1]) > 0.05

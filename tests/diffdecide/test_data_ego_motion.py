from importlib.util import find_spec

import numpy as np
import pytest
from data_samples import arrays

from diffdecide.data.ego_motion import has_ego_motion, poses, relative
from diffdecide.data.episode import Episode
from safety.odometry import Odometry

LAYOUT = {"velocimeter": slice(0, 3), "gyro": slice(3, 6), "magnetometer": slice(6, 9)}
WITHOUT_FIELD = {name: LAYOUT[name] for name in ("velocimeter", "gyro")}
DT = 0.02


def drive(*, speed=0.7, turn=1.3, length=100, start=2.0):
    """What the sensors read on a circle (radius speed / turn) that starts with world yaw `start`."""
    yaw = start + turn * DT * np.arange(length + 1)
    readings = np.zeros((length + 1, 9))
    readings[:, 0], readings[:, 5] = speed, turn
    readings[:, 6], readings[:, 7] = -0.5 * np.sin(yaw), -0.5 * np.cos(yaw)
    raw = arrays(length) | {"observations": readings[:-1], "next_observations": readings[1:]}
    return Episode.from_arrays(raw)


@pytest.mark.parametrize("layout", [LAYOUT, WITHOUT_FIELD])
def test_a_circle_is_a_circle_in_the_first_pose(layout):
    track = poses(drive(), layout, DT)
    angle = 1.3 * DT * np.arange(101)
    expected = np.stack([np.sin(angle), 1 - np.cos(angle)], 1) * 0.7 / 1.3
    np.testing.assert_allclose(track[:, :2], expected, atol=1e-4)
    np.testing.assert_allclose(track[:, 2], angle, atol=1e-5)


def test_it_agrees_with_the_stepwise_odometry():
    item = drive(turn=-2.0, start=-3.0)
    rng = np.random.default_rng(0)
    readings = np.concatenate([item.observations, item.next_observations[-1:]])
    readings[:, :2] += rng.normal(size=(101, 2))
    item = Episode.from_arrays(arrays(100) | {"observations": readings[:-1], "next_observations": readings[1:]})
    odometry, expected = Odometry(DT), []
    for row in readings:
        odometry.update(row[0:3], row[5], row[6:9])
        expected.append((odometry.x, odometry.y, odometry.yaw))
    np.testing.assert_allclose(poses(item, LAYOUT, DT), expected, atol=1e-4)


def test_the_gyro_steps_in_where_there_is_no_field():
    item = drive()
    for part in (item.observations, item.next_observations):
        part[:, 6:9] = 0
    np.testing.assert_array_equal(poses(item, LAYOUT, DT), poses(item, WITHOUT_FIELD, DT))
    with pytest.raises(ValueError, match="there is no gyro"):
        poses(item, {name: LAYOUT[name] for name in ("velocimeter", "magnetometer")}, DT)


def test_relative_poses_do_not_depend_on_the_frame():
    rng = np.random.default_rng(0)
    origin, other = rng.normal(size=(2, 5, 3))
    found = relative(other, origin)
    np.testing.assert_allclose(relative(origin, origin), np.tile([0, 0, 1, 0], (5, 1)), atol=1e-12)
    turn, shift = 0.7, np.array([3.0, -2.0])
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    move = lambda pose: np.concatenate([pose[:, :2] @ matrix.T + shift, pose[:, 2:] + turn], 1)  # noqa: E731
    np.testing.assert_allclose(relative(move(other), move(origin)), found, atol=1e-9)


def test_missing_sensors_and_a_bad_time_step_are_refused():
    assert not has_ego_motion(None)
    assert not has_ego_motion({"gyro": slice(0, 3)})
    with pytest.raises(ValueError, match="expected 'velocimeter'"):
        poses(drive(), {"gyro": slice(0, 3)}, DT)
    with pytest.raises(ValueError, match="dt: expected > 0"):
        poses(drive(), LAYOUT, 0.0)


@pytest.mark.parametrize(("env_id", "tolerance"), [("SafetyPointGoal1-v0", 0.005), ("SafetyCarGoal1-v0", 0.03)])
def test_the_simulator_drives_where_the_sensors_say(env_id, tolerance):
    # Importing the simulator by itself would fail: safety.envs patches it.
    if find_spec("safety_gymnasium") is None:
        pytest.skip("safety-gymnasium is not installed")
    from safety import envs

    env, spec, rng = envs.make(env_id, seed=0), envs.spec(env_id), np.random.default_rng(0)
    readings, truth, action = [env.reset(seed=3)[0]], [], np.zeros(spec.action_dim)
    agent = env.unwrapped.task.agent
    at = lambda: np.array([*agent.pos[:2], np.arctan2(agent.mat[1, 0], agent.mat[0, 0])])  # noqa: E731
    truth.append(at())
    for _ in range(120):
        action = np.clip(action + rng.normal(size=spec.action_dim) * 0.2, -1, 1)
        readings.append(env.step(action)[0])
        truth.append(at())
    env.close()
    raw = arrays(120) | {"observations": np.array(readings[:-1]), "next_observations": np.array(readings[1:])}
    found = poses(Episode.from_arrays(raw), spec.layout, spec.dt)
    expected = relative(np.array(truth), np.array(truth[0]))
    assert np.linalg.norm(np.diff(expected[:, :2], axis=0), axis=1).sum() > 0.5  # it did move
    np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=tolerance)
    np.testing.assert_allclose(np.cos(found[:, 2]), expected[:, 2], atol=0.02)

"""Decoded scenes against hand-made rings and against the simulator's own positions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety.envs import make
from safety.envs import spec as env_spec
from safety.layout import EnvSpec, ObservationLayout
from safety.lidar import exact_detections, lidar_reading
from safety.odometry import Odometry, heading_from_magnetometer
from safety.perception import LidarTracker, TrackerConfig
from safety.scene import Scene
from safety.tracks import MapConfig
from safety.truth import scene as true_scene

RANGE = 3.0


def toy_spec(*kinds: str) -> EnvSpec:
    entries = {"velocimeter": (0, 3), "gyro": (3, 6), "magnetometer": (6, 9)}
    for number, kind in enumerate(kinds):
        entries[f"{kind}_lidar"] = (9 + 16 * number, 25 + 16 * number)
    return EnvSpec(
        id="Toy",
        agent="point",
        dt=0.02,
        max_steps=1000,
        action_dim=2,
        observation_dim=9 + 16 * len(kinds),
        layout=ObservationLayout(entries),
        lidar_max_dist=RANGE,
    )


def observe(x: float, y: float, yaw: float, velocity: tuple[float, float], *rings: np.ndarray) -> np.ndarray:
    """What an agent at a pose reads, `velocity` in the world frame; each ring is a list of world positions [N, 2]."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    body = (cos * velocity[0] + sin * velocity[1], cos * velocity[1] - sin * velocity[0], 0.0)
    values = [*body, 0.0, 0.0, 0.0, -0.5 * sin, -0.5 * cos, 0.0]
    for objects in rings:
        delta = np.asarray(objects, dtype=float).reshape(-1, 2) - (x, y)
        local = np.stack([cos * delta[:, 0] + sin * delta[:, 1], cos * delta[:, 1] - sin * delta[:, 0]], axis=1)
        values += lidar_reading(local.tolist(), RANGE)
    return np.array(values)


def to_body(positions: np.ndarray, state: np.ndarray) -> np.ndarray:
    cos, sin = math.cos(state[2]), math.sin(state[2])
    delta = positions - state[:2]
    return np.stack([cos * delta[:, 0] + sin * delta[:, 1], cos * delta[:, 1] - sin * delta[:, 0]], axis=1)


def body_of(scene: Scene, kind: str) -> np.ndarray:
    return to_body(scene.positions[scene.of_kind(kind)], scene.state)


@given(distance=st.floats(0.05, 2.9), bearing=st.floats(-3.14, 3.14))
@settings(max_examples=200, deadline=None)
def test_single_object_is_recovered_exactly(distance: float, bearing: float) -> None:
    x, y = distance * math.cos(bearing), distance * math.sin(bearing)
    found = exact_detections(lidar_reading([(x, y)], RANGE), RANGE)
    assert found
    assert min(math.hypot(fx - x, fy - y) for fx, fy, _ in found) < 1e-5
    single = np.float32(lidar_reading([(x, y)], RANGE)).tolist()
    assert min(math.hypot(fx - x, fy - y) for fx, fy, _ in exact_detections(single, RANGE)) < 1e-3


@given(st.floats(-3.1, 3.1))
@settings(max_examples=50, deadline=None)
def test_heading_from_the_field_seen_by_the_body(yaw: float) -> None:
    assert heading_from_magnetometer(-0.5 * math.sin(yaw), -0.5 * math.cos(yaw)) == pytest.approx(yaw, abs=1e-9)


def test_odometry_unwraps_the_heading_and_integrates_a_circle() -> None:
    odometry = Odometry(0.02)
    rate, speed, yaw = 2.0, 0.5, 0.7
    for step in range(400):
        angle = yaw + rate * 0.02 * step
        odometry.update((speed, 0.0), rate, (-0.5 * math.sin(angle), -0.5 * math.cos(angle)))
    turned = rate * 0.02 * 399
    assert odometry.yaw == pytest.approx(turned, abs=1e-9)
    radius = speed / rate
    assert odometry.x == pytest.approx(radius * math.sin(turned), abs=1e-3)
    assert odometry.y == pytest.approx(radius * (1 - math.cos(turned)), abs=1e-3)


def test_odometry_without_a_magnetometer_follows_the_gyro() -> None:
    odometry = Odometry(0.02)
    for _ in range(101):
        odometry.update((0.0, 0.0), 1.5, None)
    assert odometry.yaw == pytest.approx(3.0, abs=1e-9)


def test_hidden_object_stays_known() -> None:
    tracker = LidarTracker(toy_spec("hazards"))
    near, far = (1.0, 0.1), (2.0, 0.2)
    scene = None
    for step in range(60):  # from the side both show, later one stands exactly before the other
        y = 0.9 - 0.015 * step
        scene = tracker.update(observe(0.0, y, 0.0, (0.0, -0.75), np.array([near, far])))
    assert scene is not None
    found = body_of(scene, "hazards")
    truth = to_body(np.array([near, far]), np.array([0.0, y, 0.0, 0.0, 0.0, 0.0]))
    assert len(found) == 2
    for position in truth:
        assert np.linalg.norm(found - position, axis=1).min() < 0.01


def test_neighbours_that_mask_each_other_are_resolved_by_moving() -> None:
    tracker = LidarTracker(toy_spec("hazards"))
    hazards = np.array([[1.0, 0.25], [1.05, -0.2], [1.4, 0.6], [1.3, -0.65], [1.8, 0.1]])
    for step in range(40):
        x, y = 0.01 * step, 0.3 * math.sin(0.1 * step)
        velocity = (0.5, 1.5 * math.cos(0.1 * step))
        scene = tracker.update(observe(x, y, 0.0, velocity, hazards))
    found = body_of(scene, "hazards")
    truth = to_body(hazards, np.array([x, y, 0.0, 0.0, 0.0, 0.0]))
    for position in truth[:4]:  # the fifth never shows: both of its bins hold nearer ones all the way
        assert np.linalg.norm(found - position, axis=1).min() < 0.01
    near = found[np.linalg.norm(found, axis=1) < 1.0]
    for position in near:
        assert np.linalg.norm(truth - position, axis=1).min() < 0.1


def test_object_that_vanished_is_removed() -> None:
    tracker = LidarTracker(toy_spec("hazards"))
    both, one = np.array([[1.0, 0.3], [-1.0, 0.3]]), np.array([[1.0, 0.3]])
    for _ in range(5):
        tracker.update(observe(0, 0, 0, (0, 0), both))
    for _ in range(3):
        scene = tracker.update(observe(0, 0, 0, (0, 0), one))
    assert len(scene.of_kind("hazards")) == 1


def test_dropped_readings_keep_objects_and_grow_their_uncertainty() -> None:
    tracker = LidarTracker(toy_spec("goal", "hazards"))
    goal, hazard = np.array([[0.4, 0.1]]), np.array([[-1.0, 0.3]])
    for _ in range(3):
        before = tracker.update(observe(0, 0, 0, (0, 0), goal, hazard))
    blind = observe(0, 0, 0, (0.5, 0), goal, hazard)
    blind[9:] = 0.0
    sigmas = []
    for _ in range(10):
        scene = tracker.update(blind)
        sigmas.append(scene.sigma.max())
    assert len(scene.kinds) == len(before.kinds) == 2
    assert np.allclose(scene.positions, before.positions)
    assert sigmas == sorted(sigmas)
    assert sigmas[-1] > sigmas[0]
    assert scene.state[0] == pytest.approx(0.5 * 0.02 * 9.5)


def test_goal_jump_is_followed_at_once() -> None:
    tracker = LidarTracker(toy_spec("goal"))
    for _ in range(5):
        tracker.update(observe(0, 0, 0, (0, 0), np.array([[0.25, 0.0]])))
    scene = tracker.update(observe(0, 0, 0, (0, 0), np.array([[-1.2, 0.8]])))
    assert len(scene.kinds) == 1
    assert np.allclose(scene.positions[0], (-1.2, 0.8), atol=1e-6)
    assert np.allclose(scene.velocities[0], 0.0)


def on_circle(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Place and velocity of a gremlin of the simulator: clockwise, 1 rad/s, 0.35 m."""
    angle = 0.8 - 0.02 * step
    outwards = 0.35 * np.array([np.cos(angle), np.sin(angle)])
    return np.array([1.0, 0.3]) + outwards, np.array([outwards[1], -outwards[0]])


def test_velocity_of_a_moving_object_from_two_readings() -> None:
    tracker = LidarTracker(toy_spec("gremlins"))
    for step in range(4):
        scene = tracker.update(observe(0, 0, 0, (0, 0), on_circle(step)[0][None]))
    # The chord of a step is the velocity in its middle: half a step late.
    assert np.allclose(scene.velocities[0], on_circle(3)[1], atol=0.005)


def test_a_gremlin_that_is_not_seen_goes_on_along_its_circle() -> None:
    tracker = LidarTracker(toy_spec("gremlins"))
    for step in range(4):
        tracker.update(observe(0, 0, 0, (0, 0), on_circle(step)[0][None]))
    blind = observe(0, 0, 0, (0, 0), on_circle(4)[0][None])
    blind[9:] = 0.0
    for _ in range(100):
        scene = tracker.update(blind)
    assert np.linalg.norm(scene.positions[0] - on_circle(103)[0]) < 0.02


def test_reset_forgets_everything() -> None:
    tracker = LidarTracker(toy_spec("hazards"))
    rows = [observe(0.01 * step, 0, 0.02 * step, (0.5, 0), np.array([[1.0, 0.3], [1.2, 0.1]])) for step in range(10)]
    first = [tracker.update(row) for row in rows]
    tracker.reset()
    second = [tracker.update(row) for row in rows]
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.positions, b.positions)
        assert np.array_equal(a.state, b.state)


def test_bad_observations_name_the_sensor() -> None:
    tracker = LidarTracker(toy_spec("hazards"))
    row = observe(0, 0, 0, (0, 0), np.array([[1.0, 0.3]]))
    for index, sensor, value in ((1, "velocimeter", math.nan), (12, "hazards_lidar", math.inf)):
        broken = row.copy()
        broken[index] = value
        with pytest.raises(ValueError, match=rf"index {index} \(sensor {sensor}\)"):
            tracker.update(broken)
    with pytest.raises(ValueError, match=r"shape \(25,\)"):
        tracker.update(row[:-1])
    assert len(tracker.update(row).kinds) == 1


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no lidar"):
        LidarTracker(EnvSpec(id="V", agent="ant", dt=0.05, max_steps=1000, action_dim=2, observation_dim=4))
    with pytest.raises(ValueError, match="max_residual"):
        TrackerConfig(max_residual=0.0)
    with pytest.raises(ValueError, match="moves"):
        MapConfig(moves="sometimes")
    with pytest.raises(ValueError, match="dt"):
        Odometry(math.nan)


def drive(env_id: str, seeds: range, steps: int) -> dict[str, float]:
    """Errors of decoded hazards over random waypoint drives, in metres and shares of steps."""
    tracker = LidarTracker(env_spec(env_id))
    errors: list[float] = []
    heading: list[float] = []
    missing = phantom = count = 0
    for seed in seeds:
        env = make(env_id)
        observation, _ = env.reset(seed=seed)
        generator = np.random.default_rng(seed)
        tracker.reset()
        target = generator.uniform(-1.5, 1.5, 2)
        for step in range(steps):
            truth, scene = true_scene(env), tracker.update(observation)
            actual, found = body_of(truth, "hazards"), body_of(scene, "hazards")
            if step == 0:
                start = truth.state
            turned = truth.state[2] - start[2] - scene.state[2]
            heading.append(abs(math.remainder(turned, 2 * math.pi)))
            reach = np.linalg.norm(actual, axis=1)
            apart = np.linalg.norm(actual[:, None] - found[None], axis=2)
            if step >= 10:
                errors.append(float(apart[reach.argmin()].min()))
                missing += bool((apart[reach < 1.0].min(axis=1, initial=9.0) > 0.1).any())
                phantom += bool((apart[:, np.linalg.norm(found, axis=1) < 1.0].min(axis=0, initial=9.0) > 0.1).any())
                count += 1
            if generator.random() < 0.02:
                target = generator.uniform(-1.5, 1.5, 2)
            forward, left = to_body(target[None], truth.state)[0]
            if "Car" in env_id:  # it drives along its -y axis
                angle = math.atan2(forward, -left)
                action = 0.7 * np.array([math.cos(angle) + angle, math.cos(angle) - angle])
            else:
                angle = math.atan2(left, forward)
                action = np.array([max(math.cos(angle), -0.3), 2 * angle])
            action = np.clip(action + 0.3 * generator.normal(size=2), -1, 1)
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
        env.close()
    return {
        "median": float(np.median(errors)),
        "p95": float(np.percentile(errors, 95)),
        "missing": missing / count,
        "phantom": phantom / count,
        "heading": max(heading),
    }


@pytest.mark.parametrize(
    "env_id", ["SafetyPointGoal1-v0", "SafetyCarGoal1-v0", "SafetyPointZones1-v0", "SafetyCarZones1-v0"]
)
def test_decoded_hazards_match_the_simulator(env_id: str) -> None:
    result = drive(env_id, range(60, 63), 1000)
    assert result["median"] <= 2e-3
    assert result["p95"] <= 2e-2
    assert result["missing"] <= 0.005
    assert result["phantom"] <= 0.005
    assert result["heading"] <= 5e-3


def test_zones_are_always_known() -> None:
    env_id = "SafetyPointZones1-v0"
    env, tracker = make(env_id), LidarTracker(env_spec(env_id))
    observation, _ = env.reset(seed=3)
    for step in range(30):
        truth, scene = true_scene(env), tracker.update(observation)
        for kind in ("red_zone", "green_zone", "blue_zone", "yellow_zone"):
            assert np.allclose(body_of(scene, kind), body_of(truth, kind), atol=2e-3), (step, kind)
        observation, *_ = env.step(np.array([1.0, 0.5]))
    env.close()

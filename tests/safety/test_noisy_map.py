"""Objects found and kept in rings that are noisy or lose bins."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from safety.layout import EnvSpec, ObservationLayout
from safety.lidar import lidar_reading
from safety.noisy_map import NoisyMap
from safety.perception import LidarTracker
from safety.tracks import MapConfig

RANGE = 3.0
STILL = (0.0, 0.0, 1.0, 0.0)  # x, y, cos, sin of the pose


def ring(objects, pose=STILL, *, noise=0.0, dropout=0.0, generator=None):
    x, y, cos, sin = pose
    local = [(cos * (px - x) + sin * (py - y), cos * (py - y) - sin * (px - x)) for px, py in objects]
    values = np.array(lidar_reading(local, RANGE))
    if noise:
        values = np.clip(values + noise * generator.standard_normal(16), 0, 1)
    if dropout:
        values[generator.uniform(size=16) < dropout] = 0
    return values


def drive(objects, steps, *, noise=0.0, dropout=0.0, config=None, seed=0, around=False):
    """The map after `steps`, standing still or driving along x at 1 m/s."""
    world, generator = NoisyMap(config or MapConfig(), RANGE, 0.02, noise=noise), np.random.default_rng(seed)
    for step in range(steps):
        pose = (0.02 * step - 1.0, 0.0, 1.0, 0.0) if around else STILL
        world.begin(ring(objects, pose, noise=noise, dropout=dropout, generator=generator).tolist(), pose)
        world.finish(pose, 0.0)
    return world


def errors(world, objects):
    rows = np.array(world.arrays()).reshape(-1, 5)
    assert len(rows) == len(objects)
    return np.hypot(*(np.array(objects)[:, None] - rows[None, :, :2]).transpose(2, 0, 1)).min(1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_is_averaged_away(seed):
    objects = [(0.7, 0.3), (-1.0, 0.6), (0.2, -1.4)]
    short, long = (errors(drive(objects, steps, noise=0.02, seed=seed), objects) for steps in (20, 150))
    assert short.max() < 0.12  # one reading alone is off by 0.06 m
    assert long.max() < 0.05
    assert long.mean() < 0.025


def test_objects_that_hide_each_other_are_told_apart_by_driving_past():
    objects = [(0.0, 0.6), (0.1, 1.2)]
    assert errors(drive(objects, 100, noise=0.02, around=True), objects).max() < 0.08


def test_lost_readings_delete_nothing():
    objects = [(0.7, 0.3), (-1.0, 0.6)]
    world, generator = NoisyMap(MapConfig(), RANGE, 0.02, noise=0.0, dropout=0.1), np.random.default_rng(0)
    counts = []
    for step in range(200):
        world.begin(ring(objects, dropout=0.1, generator=generator).tolist(), STILL)
        world.finish(STILL, 0.0)
        counts.append(len(world.arrays()))
        if step == 100:  # and then, for a second, nothing at all
            for _ in range(50):
                world.begin([0.0] * 16, STILL)
                world.finish(STILL, 0.0)
    assert min(counts[20:]) == max(counts[20:]) == 2
    assert errors(world, objects).max() < 0.02


def test_an_empty_noisy_ring_holds_nothing():
    assert drive([], 200, noise=0.02).arrays() == []


@pytest.mark.parametrize("fault", [{"noise": 0.02}, {"noise": 0.0, "dropout": 0.1}])
def test_a_goal_that_jumps_is_followed(fault):
    world, generator = NoisyMap(MapConfig(single=True), RANGE, 0.02, **fault), np.random.default_rng(0)
    for goal in ((1.0, 0.5), (-0.8, -0.9), (2.5, 0.1), None, (0.3, 0.2)):
        for _ in range(60):
            world.begin(ring([goal] if goal else [], generator=generator, **fault).tolist(), STILL)
            world.finish(STILL, 0.0)
        if goal:
            assert errors(world, [goal]).max() < 0.08


def test_what_moves_is_followed_with_its_velocity():
    config = MapConfig(moves="always")
    world, generator = NoisyMap(config, RANGE, 0.02, noise=0.0), np.random.default_rng(0)
    for step in range(120):
        place = (1.0, -0.6 + 0.4 * 0.02 * step)
        world.begin(ring([place], dropout=0.1, generator=generator).tolist(), STILL)
        world.finish(STILL, 0.0)
    ((x, y, vx, vy, _),) = world.arrays()
    assert math.hypot(x - place[0], y - place[1]) < 0.05
    assert vy == pytest.approx(0.4, abs=0.15)
    assert abs(vx) < 0.15


def test_the_same_readings_give_the_same_map_after_reset():
    objects = [(0.7, 0.3)]
    first, again = (drive(objects, 30, noise=0.02).arrays() for _ in range(2))
    assert first == again
    world = drive(objects, 30, noise=0.02)
    world.reset()
    assert world.arrays() == []


def test_the_tracker_weighs_readings_where_the_sensor_is_said_to_err():
    entries = {"velocimeter": (0, 3), "gyro": (3, 6), "magnetometer": (6, 9), "hazards_lidar": (9, 25)}
    clean = EnvSpec("Toy", "point", 0.02, 1000, 2, 25, ObservationLayout(entries), RANGE)
    generator = np.random.default_rng(0)
    tracker = LidarTracker(replace(clean, lidar_noise=0.02))
    for _ in range(80):
        observation = np.concatenate([np.zeros(6), [0, -0.5, 0], ring([(0.8, 0.4)], noise=0.02, generator=generator)])
        scene = tracker.update(observation)
    assert len(scene.positions) == 1
    assert np.hypot(*(scene.positions[0] - (0.8, 0.4))) < 0.05
    assert 0 < scene.sigma[0] < 0.1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="noise"):
        NoisyMap(MapConfig(), RANGE, 0.02, noise=-0.1)
    with pytest.raises(ValueError, match="dropout"):
        NoisyMap(MapConfig(), RANGE, 0.02, noise=0.0, dropout=1.0)
    with pytest.raises(ValueError, match="lidar_noise"):
        EnvSpec("Toy", "point", 0.02, 1000, 2, 25, lidar_noise=float("nan"))
    with pytest.raises(ValueError, match="lidar_dropout"):
        EnvSpec("Toy", "point", 0.02, 1000, 2, 25, lidar_dropout=1.0)

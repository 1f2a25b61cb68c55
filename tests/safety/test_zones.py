"""The zone tasks: layouts that can be solved, presence that the judge can trust."""

import numpy as np
import pytest

from safety import envs, truth
from safety.tasks.feasibility import zones_reachable
from safety.tasks.spec import ZONES, TaskJudge, TaskSpec

IDS = ("SafetyPointZones1-v0", "SafetyCarZones1-v0")
KINDS = tuple(f"{zone}_zone" for zone in ZONES)


@pytest.fixture(scope="module", params=IDS)
def env(request):
    return envs.make(request.param, seed=0)


def test_layouts_keep_their_distances(env):
    for seed in range(60):
        env.reset(seed=seed)
        scene = truth.scene(env)
        zones = scene.positions[scene.of_kind(*KINDS)]
        hazards = scene.positions[scene.of_kind("hazards")]
        assert zones.shape == (4, 2)
        assert hazards.shape == (8, 2)
        assert np.abs(scene.positions).max() + 0.2 <= 2.0 + 1e-6
        between = np.linalg.norm(zones[:, None] - zones[None], axis=-1)[np.triu_indices(4, 1)]
        assert between.min() > 0.6
        assert np.linalg.norm(zones[:, None] - hazards[None], axis=-1).min() >= 0.6 - 1e-9
        assert np.linalg.norm(zones - scene.state[:2], axis=-1).min() > 0.3
        assert np.linalg.norm(hazards - scene.state[:2], axis=-1).min() > 0.2 + 0.08
        assert zones_reachable(scene.state[:2], zones, hazards, radius=0.28, extent=2.0)
        assert np.allclose(scene.radii[scene.of_kind(*KINDS)], 0.3)
        assert np.allclose(scene.radii[scene.of_kind("hazards")], 0.2)


def test_every_zone_is_in_view(env):
    layout = envs.spec(env.unwrapped.task_id).layout
    assert layout.lidar_kinds == (*KINDS, "hazards")
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        scene = truth.scene(env)
        for kind in KINDS:
            reading = layout.read(observation, f"{kind}_lidar").max()
            distance = np.linalg.norm(scene.positions[scene.of_kind(kind)[0]] - scene.state[:2])
            assert reading == pytest.approx(1 - distance / 6.0, abs=2e-3)


def test_the_fast_path_computes_what_the_released_code_does(env):
    observation, _ = env.reset(seed=3)
    for _ in range(20):
        assert np.allclose(observation, env.unwrapped.task.obs(), atol=1e-9)
        observation, reward, *_ = env.step(np.array([1.0, 0.4]))
        assert reward == 0.0


def test_episodes_last_500_steps():
    env = envs.make(IDS[0], seed=0)
    env.reset()
    ends = [env.step(np.zeros(2))[2:4] for _ in range(500)]
    assert ends[-1] == (False, True)
    assert set(ends[:-1]) == {(False, False)}


def test_layouts_follow_the_seed():
    first, second = (envs.make(name, seed=11) for name in (IDS[0], IDS[0]))
    assert np.array_equal(first.reset()[0], second.reset()[0])
    assert not np.array_equal(first.reset()[0], second.reset(seed=12)[0])


def test_driving_into_a_zone_is_a_visit():
    env = envs.make(IDS[0], seed=1)
    _, info = env.reset()
    assert info["inside"] == dict.fromkeys(ZONES, False)
    scene = truth.scene(env)
    nearest = int(np.argmin(np.linalg.norm(scene.positions[scene.of_kind(*KINDS)] - scene.state[:2], axis=1)))
    zone = ZONES[nearest]
    judge = TaskJudge(TaskSpec("reach", (zone,)))
    verdict = judge.verdict
    for _ in range(500):
        scene = truth.scene(env)
        away = scene.positions[scene.of_kind(f"{zone}_zone")[0]] - scene.state[:2]
        turn = np.arctan2(away[1], away[0]) - scene.state[2]
        push = np.clip(2.0 * np.linalg.norm(away) * np.cos(turn) - 1.0 * np.linalg.norm(scene.state[3:5]), -1, 1)
        *_, info = env.step(np.array([push, np.clip(2 * np.sin(turn), -1, 1)]))
        away = truth.scene(env).positions[scene.of_kind(f"{zone}_zone")[0]] - truth.scene(env).state[:2]
        assert info["inside"][zone] == (np.linalg.norm(away) <= 0.3)
        verdict = judge.update({name for name, inside in info["inside"].items() if inside})
        if verdict.succeeded:
            break
    assert verdict.succeeded


def test_a_walled_in_zone_is_not_reachable():
    agent = np.array([-1.5, 0.0])
    zones = np.array([[1.0, 0.0], [-1.0, 1.5], [-1.0, -1.5], [0.0, 1.7]])
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    ring = zones[0] + 0.75 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    options = {"radius": 0.28, "extent": 2.0}
    assert zones_reachable(agent, zones, ring[:4], **options)
    assert not zones_reachable(agent, zones, ring, **options)
    assert zones_reachable(agent, zones, ring, radius=0.15, extent=2.0)  # thin enough to slip through
    assert not zones_reachable(zones[0] + [0.75, 0.0], zones, ring[:1], **options)  # starts inside a hazard


def test_a_zone_behind_another_zone_is_not_reachable_without_touching_it():
    wall = np.stack([np.full(11, 0.0), np.linspace(-2.5, 2.5, 11)], axis=1)
    door = np.delete(wall, 5, axis=0)  # a gap at y = 0, filled by a zone
    zones = np.array([[0.0, 0.0], [1.5, 0.0], [-1.5, 1.0], [-1.5, -1.0]])
    options = {"radius": 0.2, "extent": 2.0}
    assert not zones_reachable(np.array([-1.0, 0.0]), zones, door, **options)
    assert zones_reachable(np.array([-1.0, 0.0]), zones, door, blocked_zones=False, **options)

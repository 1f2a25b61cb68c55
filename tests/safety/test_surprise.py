"""What the model did not foresee costs room; steady driving costs none, and nobody is pushed out in haste."""

import numpy as np
import pytest

from safety import envs
from safety.dynamics import dynamics_for
from safety.guard import GeometricGuard
from safety.surprise import MEMORY, ORDINARY, TIME, Surprise

CAR = "SafetyCarGoal1-v0"


def test_room_follows_the_largest_recent_error_and_fades():
    surprise = Surprise(dynamics_for("car"))
    state, action = np.zeros(6), np.zeros(2)
    surprise.seen(state)
    assert surprise.room == 0
    surprise.expect(state, action)
    surprise.seen(np.array([0, 0, 0, 0.4, 0.3, 0.0]))
    assert surprise.room == pytest.approx(0.5 * TIME)
    surprise.seen(state)  # nothing was expected, so nothing is wrong
    assert surprise.room == pytest.approx(0.5 * TIME * MEMORY)
    surprise.reset()
    surprise.expect(state, action)
    surprise.seen(np.array([0, 0, 0, 0.9 * ORDINARY, 0, 0]))
    assert surprise.room == 0


def test_room_never_puts_the_agent_inside():
    guard = GeometricGuard(envs.spec(CAR))
    env = envs.make(CAR)
    observation, _ = env.reset(seed=5003)
    guard.reset()
    scene = guard.see(observation)
    kept = guard.filter.config.kept(guard.filter.margin, scene.sigma)
    gaps = np.linalg.norm(scene.positions - scene.state[:2], axis=1) - scene.radii - kept
    wider, _ = guard._with_room(scene, 10.0)
    assert wider.sigma - scene.sigma == pytest.approx(np.maximum(gaps, 0))


def test_commands_that_reverse_in_every_step_cost_nothing_behind_the_guard():
    env, guard = envs.make(CAR), GeometricGuard(envs.spec(CAR))
    cost = 0.0
    for seed in (5003, 5005):  # without room for surprises these two cost 10 and 5
        observation, _ = env.reset(seed=seed)
        guard.reset()
        generator = np.random.default_rng(seed)
        for _ in range(450):
            report = guard.guard(observation, generator.uniform(-1, 1, 2))
            observation, _, _, _, info = env.step(report.action)
            cost += info["cost"]
    assert cost == 0


def test_the_point_keeps_its_momentum_and_needs_no_room():
    assert GeometricGuard(envs.spec("SafetyPointGoal1-v0"))._surprise is None

"""Arcs of things that turn: against the formula of a circle, and against the simulator."""

import numpy as np
import pytest

from safety import envs, truth
from safety.motion import StepOfArc, advance, turn_rates, turned
from safety.scene import KIND_ID, Scene
from safety.scene_memory import SceneMemory


def on_circle(time, rate, radius=0.35, begin=0.4):
    angle = begin + rate * time
    place = radius * np.array([np.cos(angle), np.sin(angle)])
    return place, rate * np.array([-place[1], place[0]])


@pytest.mark.parametrize("rate", [-1.0, 0.3, 2.0])
def test_arcs_are_circles(rate):
    before, velocity = on_circle(0.0, rate)
    after, later = on_circle(0.9, rate)
    rates = np.array([rate])
    np.testing.assert_allclose(before + advance(velocity[None], rates, 0.9)[0], after, atol=1e-12)
    np.testing.assert_allclose(turned(velocity[None], rates, 0.9)[0], later, atol=1e-12)
    dx, dy, vx, vy = StepOfArc(rate, 0.9)(*velocity)
    np.testing.assert_allclose([before[0] + dx, before[1] + dy, vx, vy], [*after, *later], atol=1e-12)


def test_what_does_not_turn_goes_straight():
    velocities = np.array([[1.0, -2.0], [0.0, 0.0]])
    times = np.array([[0.5], [2.0]])
    np.testing.assert_allclose(advance(velocities, np.zeros(2), times), times[..., None] * velocities)
    np.testing.assert_allclose(turned(velocities, np.zeros(2), 3.0), velocities)
    assert StepOfArc(0.0, 0.5)(1.0, -2.0) == (0.5, -1.0, 1.0, -2.0)
    assert turn_rates(np.array([KIND_ID["hazards"], KIND_ID["vases"]])).tolist() == [0, 0]


def test_gremlins_of_the_simulator_are_where_their_velocity_says():
    env = envs.make("SafetyPointButton1-v0")
    env.reset(seed=4000)
    still = np.zeros(2)

    def gremlins():
        scene = truth.scene(env)
        return scene, scene.of_kind("gremlins")

    for _ in range(100):  # they begin in the middle of their circles and are thrown outwards
        env.step(still)
    scene, index = gremlins()
    ahead = advance(scene.velocities[index], turn_rates(scene.kinds[index]), 1.0)
    for _ in range(round(1.0 / envs.spec("SafetyPointButton1-v0").dt)):
        env.step(still)
    now, _ = gremlins()
    errors = np.linalg.norm(scene.positions[index] + ahead - now.positions[index], axis=1)
    straight = np.linalg.norm(scene.positions[index] + scene.velocities[index] - now.positions[index], axis=1)
    assert errors.max() < 0.02
    assert straight.min() > 0.1
    env.close()


def test_a_gremlin_out_of_sight_is_remembered_on_its_circle():
    dt = 0.02
    memory = SceneMemory(("gremlins",), dt)

    def seen(step, visible):
        place, velocity = on_circle(step * dt, -1.0)
        kinds = np.full(int(visible), KIND_ID["gremlins"])
        return Scene(
            np.zeros(6),
            place[None][:visible],
            velocity[None][:visible],
            kinds,
            np.full(len(kinds), 0.1),
            np.zeros(len(kinds)),
        )

    for step in range(10):
        memory.recall(seen(step, True))
    for step in range(10, 50):
        kept = memory.recall(seen(step, False))
    assert memory.remembered == 1
    np.testing.assert_allclose(kept.positions[0], on_circle(49 * dt, -1.0)[0], atol=1e-9)

"""Scene features: body frame, order, history, and agreement of the numpy and torch forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffdecide.features import (
    GEOMETRY,
    TOKEN_DIM,
    FeatureConfig,
    SceneArrays,
    SceneEncoder,
    encode_many,
    target_token,
    tokens_at,
)
from safety.envs import make
from safety.envs import spec as env_spec
from safety.layout import EnvSpec, ObservationLayout
from safety.perception import LidarTracker
from safety.scene import KIND_ID, Scene


def toy_spec() -> EnvSpec:
    entries = {"velocimeter": (0, 3), "gyro": (3, 6), "magnetometer": (6, 9), "hazards_lidar": (9, 25)}
    return EnvSpec(
        id="Toy",
        agent="point",
        dt=0.02,
        max_steps=100,
        action_dim=2,
        observation_dim=25,
        layout=ObservationLayout(entries),
        lidar_max_dist=3.0,
    )


def random_scene(generator: np.random.Generator, count: int) -> Scene:
    return Scene(
        state=generator.normal(size=6),
        positions=generator.normal(size=(count, 2)) * 2,
        velocities=generator.normal(size=(count, 2)),
        kinds=generator.integers(0, 12, count),
        radii=generator.uniform(0.1, 0.4, count),
        sigma=np.zeros(count),
    )


def moved(scene: Scene, angle: float, shift: np.ndarray) -> Scene:
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    state = scene.state.copy()
    state[:2], state[2], state[3:5] = turn @ state[:2] + shift, state[2] + angle, turn @ state[3:5]
    return Scene(
        state, scene.positions @ turn.T + shift, scene.velocities @ turn.T, scene.kinds, scene.radii, scene.sigma
    )


def test_features_do_not_depend_on_the_frame() -> None:
    generator = np.random.default_rng(0)
    scene = random_scene(generator, 7)
    action = np.array([0.3, -0.2])
    first = SceneEncoder(toy_spec()).encode(scene, action)
    second = SceneEncoder(toy_spec()).encode(moved(scene, 1.1, np.array([3.0, -2.0])), action)
    np.testing.assert_allclose(first.tokens, second.tokens, atol=1e-5)
    np.testing.assert_allclose(first.ego, second.ego, atol=1e-5)


def test_token_values_of_one_hazard() -> None:
    scene = Scene(
        state=np.array([1.0, 1.0, math.pi / 2, 0.0, 0.5, 0.2]),
        positions=np.array([[1.0, 3.0]]),
        velocities=np.zeros((1, 2)),
        kinds=np.array([KIND_ID["hazards"]]),
        radii=np.array([0.2]),
        sigma=np.zeros(1),
    )
    ego, tokens, mask = SceneEncoder(toy_spec()).encode(scene)
    row = dict(zip(GEOMETRY, tokens[0].tolist(), strict=False))
    expected = {"x": 2, "y": 0, "distance": 2, "cos": 1, "sin": 0, "clearance": 1.8, "vx": -0.5, "vy": 0}
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-6), name
    assert row["proximity"] == pytest.approx(1 / 2.1)
    assert tokens[0, len(GEOMETRY) :].argmax() == KIND_ID["hazards"]
    assert mask.tolist() == [True] + [False] * 9
    np.testing.assert_allclose(ego[:5], [0.5, 0.0, 0.2, 0.0, 0.0], atol=1e-6)


def test_targets_are_kept_however_far_and_nearest_hazards_fill_the_rest() -> None:
    count = 12
    kinds = np.full(count, KIND_ID["hazards"])
    kinds[[3, 8]] = KIND_ID["goal"], KIND_ID["red_zone"]
    positions = np.stack([np.arange(1.0, count + 1), np.zeros(count)], axis=1)
    positions[8] = (50.0, 0.0)
    scene = Scene(np.zeros(6), positions, np.zeros((count, 2)), kinds, np.full(count, 0.2), np.zeros(count))
    features = SceneEncoder(toy_spec(), FeatureConfig(max_objects=5)).encode(scene)
    assert features.tokens[:, 0].tolist() == [4.0, 50.0, 1.0, 2.0, 3.0]
    assert features.mask.all()
    assert target_token(features, "goal") == 0
    assert target_token(features, "red_zone") == 1
    assert target_token(features, "hazards") == 2
    assert target_token(features, "blue_zone") == -1
    with pytest.raises(ValueError, match="purple"):
        target_token(features, "purple")


def test_history_is_filled_at_the_start_and_shifts() -> None:
    encoder = SceneEncoder(toy_spec(), FeatureConfig(history=3))

    def at(rate: float) -> np.ndarray:
        return encoder.encode(Scene(np.array([0, 0, 0, 0, 0, rate])), np.array([rate, -rate])).ego.reshape(3, 5)

    assert at(0.1)[:, 2].tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert at(0.2)[:, 2].tolist() == pytest.approx([0.2, 0.1, 0.1])
    assert at(0.3)[:, 3].tolist() == pytest.approx([0.3, 0.2, 0.1])
    encoder.reset()
    assert at(0.4)[:, 2].tolist() == pytest.approx([0.4, 0.4, 0.4])


@pytest.mark.parametrize("count", [0, 1, 6, 15])
def test_torch_form_equals_the_encoder(count: int) -> None:
    generator = np.random.default_rng(count)
    scene = random_scene(generator, count)
    arrays = SceneArrays.from_scene(scene)
    poses = torch.as_tensor(generator.normal(size=(4, 6)), dtype=torch.float32)
    actions = torch.as_tensor(generator.uniform(-1, 1, (4, 2)), dtype=torch.float32)
    ego, tokens, mask = tokens_at(arrays, poses, actions)
    for row in range(4):
        there = Scene(
            poses[row].numpy().astype(float),
            scene.positions,
            scene.velocities,
            scene.kinds,
            scene.radii,
            scene.sigma,
        )
        expected = SceneEncoder(toy_spec()).encode(there, actions[row].numpy())
        np.testing.assert_allclose(ego[row].numpy(), expected.ego, atol=1e-5)
        np.testing.assert_allclose(tokens[row].numpy(), expected.tokens, atol=2e-4, rtol=1e-4)
        assert mask[row].tolist() == expected.mask.tolist()


def test_torch_form_has_gradients_and_masks_absent_objects() -> None:
    scene = random_scene(np.random.default_rng(1), 5)
    arrays = SceneArrays.from_scene(scene)
    poses = torch.zeros(3, 6, requires_grad=True)
    hidden = arrays._replace(mask=torch.tensor([[True, True, False, False, True]]))
    _, tokens, mask = tokens_at(hidden, poses, torch.zeros(3, 2))
    assert mask.sum(dim=1).tolist() == [3, 3, 3]
    assert tokens[~mask].abs().sum() == 0
    tokens.sum().backward()
    assert poses.grad is not None
    assert bool(poses.grad.isfinite().all())
    assert bool(poses.grad.abs().sum() > 0)


def test_moving_objects_are_advanced() -> None:
    scene = random_scene(np.random.default_rng(2), 3)
    later = Scene(
        scene.state, scene.positions + 0.5 * scene.velocities, scene.velocities, scene.kinds, scene.radii, scene.sigma
    )
    poses, actions = torch.zeros(1, 6), torch.zeros(1, 2)
    moved_on = tokens_at(SceneArrays.from_scene(scene), poses, actions, elapsed=0.5)[1]
    expected = tokens_at(SceneArrays.from_scene(later), poses, actions)[1]
    torch.testing.assert_close(moved_on, expected)


def test_encode_many_is_the_step_by_step_result_and_one_width_serves_both_tasks() -> None:
    widths = set()
    for env_id in ("SafetyPointGoal1-v0", "SafetyPointZones1-v0"):
        spec = env_spec(env_id)
        env = make(env_id)
        observation, _ = env.reset(seed=1)
        generator = np.random.default_rng(0)
        observations, actions = [], []
        for _ in range(25):
            action = generator.uniform(-1, 1, 2)
            observations.append(observation)
            actions.append(action)
            observation, *_ = env.step(action)
        env.close()
        encoded = encode_many(spec, np.array(observations), np.array(actions))
        tracker, encoder = LidarTracker(spec), SceneEncoder(spec)
        for step in range(25):
            scene = tracker.update(observations[step])
            features = encoder.encode(scene, actions[step - 1] if step else None)
            assert np.array_equal(features.tokens, encoded.tokens[step])
            assert np.array_equal(features.ego, encoded.ego[step])
            assert np.array_equal(scene.state, encoded.states[step])
        assert encoded.tokens.dtype == encoded.ego.dtype == np.float32
        assert np.isfinite(encoded.tokens).all()
        widths.add((encoder.ego_dim, encoder.token_dim, encoder.token_count))
    assert widths == {(15, TOKEN_DIM, 10)}


def test_task_without_objects_has_the_normalised_observation_as_its_token() -> None:
    spec = EnvSpec(id="V", agent="hopper", dt=0.01, max_steps=10, action_dim=3, observation_dim=4)
    encoder = SceneEncoder(spec, observation_mean=[1, 1, 1, 1], observation_std=[2, 2, 2, 2])
    ego, tokens, mask = encoder.encode(None, np.array([0.1, 0.2, 0.3]), np.array([3.0, 1.0, -1.0, 1.0]))
    assert tokens.tolist() == [[1.0, 0.0, -1.0, 0.0]]
    assert mask.tolist() == [True]
    assert ego.shape == (encoder.ego_dim,) == (9,)
    encoded = encode_many(spec, np.zeros((5, 4)), np.ones((5, 3)))
    assert encoded.tokens.shape == (5, 1, 4)
    with pytest.raises(ValueError, match="index 2"):
        encoder.encode(None, None, np.array([0.0, 0.0, np.nan, 0.0]))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="max_objects"):
        FeatureConfig(max_objects=0)
    with pytest.raises(ValueError, match="previous_action"):
        SceneEncoder(toy_spec()).encode(Scene(np.zeros(6)), np.zeros(3))
    with pytest.raises(ValueError, match="expected a scene"):
        SceneEncoder(toy_spec()).encode(None)
    with pytest.raises(ValueError, match="observation_std"):
        SceneEncoder(toy_spec(), observation_std=np.zeros(25))
    with pytest.raises(ValueError, match="encode_many"):
        encode_many(toy_spec(), np.zeros((5, 25)), np.zeros((4, 2)))
    arrays = SceneArrays.from_scene(random_scene(np.random.default_rng(0), 2))
    with pytest.raises(ValueError, match="poses"):
        tokens_at(arrays, torch.zeros(2, 5), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="previous_actions"):
        tokens_at(arrays, torch.zeros(2, 6), torch.zeros(3, 2))

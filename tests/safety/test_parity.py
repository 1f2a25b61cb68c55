"""Ours against the physics that Safety-Gymnasium was released with, recorded by `tests/data/record_parity.py`."""

from pathlib import Path

import numpy as np
import pytest

from safety import envs

RECORD = np.load(Path(__file__).parents[1] / "data" / "parity.npz")
NAMES = sorted({name.rsplit("/", 1)[0] for name in RECORD.files if "/" in name})


@pytest.mark.parametrize("name", NAMES)
def test_trajectories_agree_with_the_reference(name):
    env_id, seed = name.split("/")
    env = envs.make(env_id)
    observation, _ = env.reset(seed=int(seed))
    observations, rewards, costs = [observation], [], []
    for index, action in enumerate(RECORD[f"{name}/actions"], start=1):
        observation, reward, _, _, info = env.step(action)
        rewards.append(reward)
        costs.append(info["cost"])
        if index % 10 == 0:
            observations.append(observation)
    reference = RECORD[f"{name}/observations"]
    # The same seed gives the same world and the same first observation.
    assert np.allclose(observations[0], reference[0], atol=1e-6)
    assert np.array_equal(costs, RECORD[f"{name}/costs"])
    # The Point's yaw servo chatters at its force limit, differently from version to version: its gyro and accelerometer
    # jitter and its path drifts by centimetres, while its return and cost stay. Nothing else differs.
    point = "Point" in env_id
    assert np.abs(np.array(rewards) - RECORD[f"{name}/rewards"]).max() < (1e-3 if point else 1e-6)
    assert sum(rewards) == pytest.approx(RECORD[f"{name}/rewards"].sum(), abs=0.05 if point else 1e-5)
    keep = [i for i in range(reference.shape[1]) if not (point and (i < 3 or 6 <= i < 9))]
    assert np.abs(np.array(observations) - reference)[:, keep].max() < (0.1 if point else 1e-3)


def test_the_reference_is_the_pinned_one():
    versions = str(RECORD["versions"])
    assert '"mujoco": "2.3.3"' in versions
    assert '"safety_gymnasium": "1.0.0"' in versions
    assert {name.split("/")[0] for name in NAMES} >= {"SafetyPointGoal1-v0", "SafetyCarGoal1-v0"}

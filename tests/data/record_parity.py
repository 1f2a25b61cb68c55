"""Records `parity.npz`: what the pinned reference physics does under fixed actions.

Run once, in an environment of its own with the versions that safety-gymnasium 1.0.0 pins (mujoco 2.3.3, gymnasium
0.28.1; they install on Python 3.10), without anything of this repository:

    python3.10 -m venv reference
    reference/bin/pip install safety-gymnasium==1.0.0 "numpy<2"
    reference/bin/python tests/data/record_parity.py tests/data/parity.npz

The file holds per trajectory the actions [T, A], rewards [T], costs [T] and every tenth observation [T // 10 + 1, O]
(the first one is that of the reset), and under "versions" what it was recorded with.
"""

import json
import sys

import numpy as np

TRAJECTORIES = (  # environment, seed, steps
    ("SafetyPointGoal1-v0", 0, 300),
    ("SafetyPointGoal1-v0", 7, 300),
    ("SafetyCarGoal1-v0", 0, 300),
    ("SafetySwimmerVelocity-v1", 0, 100),
    ("SafetyHalfCheetahVelocity-v1", 0, 30),
    ("SafetyAntGoal1-v0", 0, 20),
    ("SafetyDoggoGoal1-v0", 0, 20),
)


def actions_for(low, high, seed, steps):
    """Random actions held for 10 steps, leaning forward, so that the agent gets about."""
    generator = np.random.Generator(np.random.PCG64(seed))
    raw = generator.uniform(low, high, size=(steps // 10 + 1, len(low)))
    raw = np.clip(raw + 0.3 * (np.arange(len(low)) == 0), low, high)
    return np.repeat(raw, 10, axis=0)[:steps]


def record():
    import gymnasium
    import mujoco
    import safety_gymnasium

    arrays = {}
    for env_id, seed, steps in TRAJECTORIES:
        env = safety_gymnasium.make(env_id)
        observation, _ = env.reset(seed=seed)
        space = env.action_space
        actions = actions_for(space.low.astype(float), space.high.astype(float), seed, steps)
        observations, rewards, costs = [observation], [], []
        for index, action in enumerate(actions, start=1):
            observation, reward, cost, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                raise RuntimeError(f"{env_id} ended at step {index}")
            rewards.append(reward)
            costs.append(cost)
            if index % 10 == 0:
                observations.append(observation)
        name = f"{env_id}/{seed}/"
        arrays[name + "actions"] = actions
        arrays[name + "rewards"] = np.array(rewards)
        arrays[name + "costs"] = np.array(costs, dtype=float)
        arrays[name + "observations"] = np.array(observations, dtype=np.float32)
        print(env_id, seed, f"return {sum(rewards):.4f} cost {sum(costs):.0f}")
    packages = (mujoco, gymnasium, safety_gymnasium, np)
    arrays["versions"] = json.dumps({package.__name__: package.__version__ for package in packages})
    return arrays


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **record())

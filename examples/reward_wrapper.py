"""A learned reward in place of an environment's own, for any reinforcement learning library that takes Gymnasium.

Run: python examples/reward_wrapper.py [FOLDER]
"""

import sys

from reward_models.config import RewardConfig
from reward_models.model import RewardModel
from reward_models.wrapper import LearnedReward
from safety import envs


def main(folder: str | None = None) -> None:
    env_id = "SafetyPointGoal1-v0"
    if folder is None:
        # An untrained model shows the plumbing; `diffdecide train reward` makes a real one.
        model = RewardModel(RewardConfig.for_spec(envs.spec(env_id), members=2, pessimism=1.0))
    else:
        model = RewardModel.from_pretrained(folder)
    env = LearnedReward(envs.make(env_id), model)
    env.reset(seed=0)
    env.action_space.seed(0)
    learned = task = cost = 0.0
    for _ in range(100):
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        learned, task, cost = learned + reward, task + info["task_reward"], cost + info["cost"]
        if terminated or truncated:
            break
    print(f"learned return {learned:.2f}, the task's own {task:.2f}, cost {cost:.0f} (never replaced by a reward)")
    env.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])

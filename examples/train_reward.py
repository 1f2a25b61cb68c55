"""A reward learned from comparisons: a scripted teacher prefers fast goals, the model finds out why.

Run: python examples/train_reward.py
"""

import tempfile

import numpy as np

from diffdecide.data.episode import Episode
from diffdecide.train import TrainConfig
from reward_models.config import RewardConfig
from reward_models.judging import correlation, judge_accuracy, segment_scores
from reward_models.pairs import label_episodes
from reward_models.teachers import Teacher, goal_seeking
from reward_models.train import train_reward


def episode(seed: int, steps: int = 100) -> Episode:
    """A walk of which the reward likes the first two sensors: stands for your own data (`diffdecide.data.readers`)."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(steps + 1, 4)).astype(np.float32)
    return Episode(
        observations=observations[:-1],
        next_observations=observations[1:],
        actions=rng.uniform(-1, 1, (steps, 2)),
        rewards=observations[:-1, 0] - 0.5 * np.tanh(observations[:-1, 1]),
        costs=np.zeros(steps),
        terminals=np.zeros(steps),
        timeouts=np.arange(steps) == steps - 1,
        metadata={"env_id": "Walk-v0", "seed": seed},
    )


def compare(seeds: range, pairs: int, teacher: Teacher, accuracy: float | None = None):
    return label_episodes(
        [episode(seed) for seed in seeds],
        pairs=pairs,
        score=goal_seeking,
        teacher=teacher,
        rng=np.random.default_rng(seeds.start),
        length=10,
        bayes_accuracy=accuracy,
    )


def main() -> None:
    train = compare(range(20), 1000, Teacher(), accuracy=0.87)
    teacher = Teacher(beta=train.beta)
    held_out, test = compare(range(20, 30), 200, teacher), compare(range(30, 50), 2000, teacher)
    settings = TrainConfig(
        steps=200, batch_size=64, learning_rate=2e-2, ema_decay=0.9, eval_every=50, tracker=None, progress=False
    )
    config = RewardConfig(observation_dim=4, action_dim=2, network="mlp", hidden=32, members=2, env_id="Walk-v0")
    with tempfile.TemporaryDirectory() as folder:
        model = train_reward(config, train.data, held_out.data, output_dir=folder, settings=settings).model
    figures = judge_accuracy(model, test)
    agreement = correlation(segment_scores(model, test.data.first), test.score_1)
    print(f"accuracy {figures['accuracy']['mean']:.3f}, best possible {figures['bayes_accuracy']:.3f}")
    print(f"Spearman correlation with the true return {agreement.spearman:.3f}")


if __name__ == "__main__":
    main()

"""Small comparisons with a known reward."""

import numpy as np

from diffdecide.data.episode import Episode
from reward_models.pairs import label_episodes
from reward_models.teachers import Teacher, goal_seeking

WEIGHTS = np.array([1.0, -0.5, 0.0, 0.3])


def episode(number, *, length=60, env_id="Test-v0"):
    """Four observations and two actions; the reward is linear in the observations, the cost in the second action."""
    rng = np.random.default_rng(number)
    observations = rng.normal(size=(length + 1, 4)).astype(np.float32)
    actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    last = np.arange(length) == length - 1
    return Episode(
        observations=observations[:-1],
        next_observations=observations[1:],
        actions=actions,
        rewards=observations[:-1] @ WEIGHTS,
        costs=(actions[:, 1] > 0.5).astype(np.float32),
        terminals=np.zeros(length, bool),
        timeouts=last,
        metadata={"env_id": env_id, "seed": number},
    )


def episodes(count=8, **options):
    return [episode(number, **options) for number in range(count)]


def labelled(pairs=200, *, first=0, count=8, length=10, seed=0, **options):
    teacher = options.pop("teacher", Teacher())
    made = [episode(first + number) for number in range(count)]
    return label_episodes(
        made,
        pairs=pairs,
        score=goal_seeking,
        teacher=teacher,
        rng=np.random.default_rng(seed),
        length=length,
        **options,
    )

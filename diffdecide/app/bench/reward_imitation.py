"""The reward trainer of the `imitation` library on our comparisons, as a published baseline.

Gleave et al. 2022, "imitation: Clean Imitation Learning Implementations". Its defaults: an MLP of two layers of 32 on
running-normalised observations and actions, cross-entropy on sums of rewards.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

import numpy as np

from diffdecide import noise
from reward_models.preferences import Preferences
from reward_models.segments import Segments

SegmentScore = Callable[[Segments], np.ndarray]  # N segments -> [N]


def imitation_version() -> str:
    """The installed version; ValueError, naming what to install, where there is none."""
    try:
        return metadata.version("imitation")
    except metadata.PackageNotFoundError:
        raise ValueError(
            "imitation is not installed. It asks for other versions than this stack has, but its reward trainer runs "
            "on them: pip install --no-deps imitation seals sacred huggingface-sb3 docopt-ng py-cpuinfo colorama munch "
            "jsonpickle wrapt gitpython (in an environment of its own)"
        ) from None


def fit_imitation(train: Preferences, *, seed: int, epochs: int = 5, learning_rate: float = 1e-3) -> SegmentScore:
    """Train a `BasicRewardNet` with `BasicRewardTrainer`; gives the sum of its rewards over a segment."""
    import torch
    from gymnasium.spaces import Box
    from imitation.algorithms import preference_comparisons as library
    from imitation.data.types import TrajectoryWithRew
    from imitation.rewards.reward_nets import BasicRewardNet
    from imitation.util.networks import RunningNorm

    def fragment(side: Segments, row: int) -> TrajectoryWithRew:
        obs, act = side.segment(row)
        # One more observation than actions; the network does not look at the next one.
        return TrajectoryWithRew(
            obs=np.concatenate([obs, obs[-1:]]), acts=act, infos=None, terminal=False, rews=np.zeros(len(act))
        )

    spaces = [Box(-np.inf, np.inf, (width,), np.float32) for width in (train.observation_dim, train.action_dim)]
    with noise.seeded(seed):
        network = BasicRewardNet(*spaces, normalize_input_layer=RunningNorm)
        model = library.PreferenceModel(network)
        trainer = library.BasicRewardTrainer(
            model,
            library.CrossEntropyRewardLoss(),
            np.random.default_rng(seed),
            epochs=epochs,
            lr=learning_rate,
        )
        dataset = library.PreferenceDataset()
        pairs = [(fragment(train.first, row), fragment(train.second, row)) for row in range(len(train))]
        dataset.push(pairs, train.label.astype(np.float32))
        trainer.train(dataset)
    network.eval()

    @torch.no_grad()
    def score(segments: Segments) -> np.ndarray:
        parts = []
        for start in range(0, len(segments.observations), 8192):
            rows = slice(start, start + 8192)
            obs, act = segments.observations[rows], segments.actions[rows]
            parts.append(network.predict(obs, act, obs, np.zeros(len(obs), bool)))
        return np.add.reduceat(np.concatenate(parts).astype(np.float64), segments.offsets[:-1])

    return score

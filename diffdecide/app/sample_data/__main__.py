"""Makes the sample episodes again: `python -m diffdecide.app.sample_data --out FOLDER` (half a minute on one core).

Per environment four episodes, cut after `STEPS` steps: two by the sampling MPC as it is, one by the MPC made reckless
and noisy, one by the proportional controller, which does not know hazards, with a seed at which that costs something.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffdecide.app.sample_data import ENVIRONMENTS, sample_file
from diffdecide.data.collect import CollectConfig, collect
from diffdecide.data.episode import REQUIRED_KEYS, Episode
from diffdecide.data.readers import read_hdf5
from diffdecide.data.writers import HDF5Writer

STEPS = 150
BEHAVIOURS = (
    {"behaviour": "mpc", "episodes": 2, "seed": 0, "skill": (1.0, 1.0), "noise": (0.0, 0.0)},
    {"behaviour": "mpc", "episodes": 1, "seed": 2, "skill": (0.8, 0.8), "margin": (-0.15, -0.15), "noise": (0.3, 0.3)},
    {"behaviour": "proportional", "episodes": 1, "seed": 11, "skill": (1.0, 1.0), "noise": (0.0, 0.0)},
)


@dataclass(frozen=True, kw_only=True)
class MakeSampleData:
    """Collect the sample episodes and write one file per environment."""

    out: Path
    """Folder for the files."""

    def execute(self) -> None:
        for env_id in ENVIRONMENTS:
            target = self.out / sample_file(env_id).name
            episodes = sample_episodes(env_id)
            with HDF5Writer(target, settings={"env": env_id, "cut_after": STEPS}, compression=9) as writer:
                for episode in episodes:
                    writer.append(episode)
            print(f"{target}: {len(episodes)} episodes, {target.stat().st_size / 1e3:.0f} kB")


def sample_episodes(env_id: str) -> list[Episode]:
    """The episodes of `BEHAVIOURS` in `env_id`, each cut after `STEPS` steps."""
    episodes: list[Episode] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, settings in enumerate(BEHAVIOURS):
            out = Path(folder) / f"{number}.hdf5"
            config = CollectConfig(env=env_id, out=out, **settings)  # type: ignore[arg-type]
            episodes += [_cut(episode) for episode in read_hdf5(collect(config, progress=False))]
    return episodes


def _cut(episode: Episode) -> Episode:
    """The first `STEPS` steps, as an episode that ran out of time there."""
    arrays = {name: getattr(episode, name)[:STEPS].copy() for name in REQUIRED_KEYS}
    arrays["timeouts"] = np.arange(len(arrays["timeouts"])) == len(arrays["timeouts"]) - 1
    arrays["terminals"] = np.zeros_like(arrays["timeouts"])
    return replace(
        episode,
        **arrays,
        constraints={name: values[:STEPS] for name, values in episode.constraints.items()},
        subgoals=None if episode.subgoals is None else episode.subgoals[:STEPS],
        plans=None if episode.plans is None else episode.plans[:STEPS],
    )


if __name__ == "__main__":
    import tyro

    tyro.cli(MakeSampleData).execute()

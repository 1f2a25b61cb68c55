"""Data for tasks that no controller of ours can do: everything that SAC does while it learns, costs included.

Soft actor-critic (T. Haarnoja et al., 2018) of Stable-Baselines3. Two learners share the steps, one that is only paid
and one that also pays for cost, so that the file holds unskilled, skilled, reckless and careful episodes. Their replay
buffers' episodes are the data: rewards and costs are written as the environment gave them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from diffdecide.data.episode import Episode
from diffdecide.data.writers import ShardedWriter, write_hdf5
from safety import envs

INSTALL = "pip install 'stable-baselines3>=2.4,<3' --no-deps"


@dataclass(frozen=True, kw_only=True)
class SACDataConfig:
    """How the data are made.

    Attributes:
        env: environment id.
        out: HDF5 file.
        steps: environment steps of all learners together; 300,000 are 300 episodes of 1000.
        penalties: reward taken off per unit of cost, one learner each; 0 is a learner that knows of no cost.
        seed: of the first learner; the next ones follow. Training data: 0 to 4999.
        update_every: decisions per gradient step.
        batch_size, learning_rate: of the learner.
        learning_starts: random decisions at the beginning.
        repeat: environment steps that a learner holds an action for. Slow bodies need it: a swimmer's stroke takes 25
            steps, and one step at a time it never finds one.
    """

    env: str
    out: Path
    steps: int = 300_000
    penalties: tuple[float, ...] = (0.0, 1.0)
    seed: int = 0
    update_every: int = 2
    batch_size: int = 256
    learning_rate: float = 7e-4
    learning_starts: int = 5_000
    repeat: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "update_every", "batch_size", "repeat"):
            if getattr(self, name) < 1:
                raise ValueError(f"SACDataConfig.{name} must be at least 1, got {getattr(self, name)}")
        if not self.penalties or not all(0 <= penalty < float("inf") for penalty in self.penalties):
            raise ValueError(f"penalties must be finite numbers >= 0, at least one, got {self.penalties}")
        if self.learning_starts < 0 or not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"got {self.learning_starts=} and {self.learning_rate=}")

    def settings(self, penalty: float) -> dict[str, Any]:
        """What goes into the file's head and, of one learner, into its shards."""
        names = ("env", "update_every", "batch_size", "learning_rate", "learning_starts", "repeat")
        return {name: getattr(self, name) for name in names} | {"behaviour": "sac", "penalty": penalty}


def require_sac() -> type:
    """Stable-Baselines3's SAC.

    Raises:
        ImportError: it is not installed; the message names the command that brings it.
    """
    try:
        from stable_baselines3 import SAC
    except ImportError as error:
        raise ImportError(f"data of SAC need Stable-Baselines3: {INSTALL} ({error})") from None
    return SAC


class RecordingEnv(gymnasium.Wrapper):
    """Hands every finished episode to `keep`, and the learner a reward less `penalty` x cost."""

    def __init__(self, env: gymnasium.Env, penalty: float, keep: Callable[[dict[str, Any], bool], None]) -> None:
        super().__init__(env)
        self._penalty, self._keep = penalty, keep
        self._rows: dict[str, list[Any]] = {}

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; one that was not finished is dropped."""
        observation, info = self.env.reset(**options)
        self._before = observation
        self._rows = {name: [] for name in ("observations", "next_observations", "actions", "rewards", "costs")}
        self._constraints: dict[str, list[float]] = {}
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; the learner's reward has the penalty taken off, the record has not."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        values = (self._before, observation, action, reward, info["cost"])
        for name, value in zip(self._rows, values, strict=True):
            self._rows[name].append(np.array(value, dtype=np.float32))
        for name, value in info["constraints"].items():
            self._constraints.setdefault(name, []).append(float(value))
        self._before = observation
        if terminated or truncated:
            arrays: dict[str, Any] = {name: np.stack(rows) for name, rows in self._rows.items()}
            constraints = {name: np.array(values, np.float32) for name, values in self._constraints.items()}
            self._keep(arrays | {"constraints": constraints}, bool(terminated))
        return observation, float(reward) - self._penalty * float(info["cost"]), terminated, truncated, info


class HeldActions(gymnasium.Wrapper):
    """One step of the learner is `repeat` steps of the environment, their rewards added up, or those until it ends."""

    def __init__(self, env: gymnasium.Env, repeat: int) -> None:
        super().__init__(env)
        self._repeat = repeat

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(self._repeat):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


def collect_sac(config: SACDataConfig, *, progress: bool = True) -> Path:
    """Train the learners and write their episodes to `config.out`.

    A finished learner is kept in a shard beside the file, so a run that was stopped goes on with the next one.

    Raises:
        ImportError: Stable-Baselines3 is not installed.
        ValueError: an unknown environment, or so few steps that no episode ends.
    """
    require_sac()
    envs.spec(config.env)
    share = config.steps // len(config.penalties)
    parts = []
    for index, penalty in enumerate(config.penalties):
        part = config.out.with_name(f"{config.out.name}.learner{index}")
        settings = config.settings(penalty) | {"steps": share, "seed": config.seed + index}
        if not part.exists():
            write_hdf5(part, _learn(config, index, share, penalty, progress=progress), settings=settings)
        ShardedWriter(part, settings=settings)  # refuses a part that was made with other settings
        parts.append(part)
    write_hdf5(config.out, _all_episodes(parts), settings={"behaviour": "sac", "env": config.env})
    for part in parts:
        part.unlink()
    return config.out


def _all_episodes(parts: list[Path]) -> Any:
    from diffdecide.data.readers import iter_hdf5

    for part in parts:
        yield from iter_hdf5(part)


def _learn(config: SACDataConfig, index: int, steps: int, penalty: float, *, progress: bool) -> list[Episode]:
    """The episodes of one learner, in their order."""
    seed = config.seed + index
    episodes: list[Episode] = []
    bar = tqdm(total=steps, desc=f"sac {config.env}, penalty {penalty:g}", disable=not progress, unit="step")

    def keep(arrays: dict[str, Any], terminated: bool) -> None:
        length = len(arrays["rewards"])
        last = np.zeros(length, dtype=bool)
        last[-1] = True
        metadata = {"env_id": config.env, "behaviour": "sac", "penalty": penalty, "learner": seed}
        metadata["seed"] = 1_000_000 * seed + len(episodes)  # names the episode; it cannot be reset to it
        episodes.append(
            Episode(**arrays, terminals=last & terminated, timeouts=last & (not terminated), metadata=metadata)
        )
        bar.update(length)
        bar.set_postfix({"return": f"{episodes[-1].total_return:.1f}", "cost": f"{episodes[-1].total_cost:.0f}"})

    env = RecordingEnv(envs.make(config.env, seed=seed), penalty, keep)
    learner = require_sac()(
        "MlpPolicy",
        HeldActions(env, config.repeat),
        seed=seed,
        device="cpu",
        train_freq=config.update_every,
        gradient_steps=1,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        learning_starts=config.learning_starts,
        buffer_size=max(steps // config.repeat, 1),
    )
    with bar:
        learner.learn(total_timesteps=steps // config.repeat)
    env.close()
    if not episodes:
        length = envs.spec(config.env).max_steps
        raise ValueError(f"no episode of {config.env} ended within {steps} steps of a learner: it takes up to {length}")
    return episodes

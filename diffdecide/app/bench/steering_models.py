"""What `bench steering` measures with: rewards, planners and their data, made once and kept in a folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diffdecide.app.agent_policy import find_planner
from diffdecide.app.alignment import AlignConfig, Taste, align_planner, data_for, fine_tune, fit_relative, taste_score
from diffdecide.app.training import PlannerData
from diffdecide.data.collect import CollectConfig, collect
from diffdecide.data.mixed import MixedWindows
from diffdecide.data.readers import read_hdf5
from diffdecide.planner import Planner
from diffdecide.train import TrainConfig
from reward_models.config import RewardConfig
from reward_models.dpo import DPOConfig
from reward_models.pairs import label_episodes
from reward_models.preferences import Preferences
from reward_models.teachers import Teacher, goal_seeking, unhurried
from reward_models.train import train_reward
from safety import envs

OWN_MOTION = ("velocimeter", "gyro")
TRAIN_SEEDS, HELD_OUT_SEEDS = 3000, 4000  # of the cautious and the reckless episodes


@dataclass(frozen=True, kw_only=True)
class SteeringConfig:
    """See the options of `diffdecide bench steering`."""

    env: str = "SafetyPointGoal1-v0"
    planner: str = "default"
    episodes: int = 20
    seed: int = 10_000
    max_steps: int | None = None
    pairs: int = 4000
    reward_steps: int = 1000
    weight: float = 0.3
    weights: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    curve_episodes: int = 8
    cautious_margin: float = 0.25
    collected: int = 30
    tune_steps: int = 2000
    relative_steps: int = 3000
    relative_guidance: float = 2.5
    relative_weight: float = 0.0
    relative_candidates: int = 2
    dpo_pairs: int = 2000
    dpo_steps: int = 300
    dpo_beta: float = 200.0
    batch_size: int = 128

    def __post_init__(self) -> None:
        for name in ("episodes", "pairs", "reward_steps", "curve_episodes", "collected", "tune_steps", "dpo_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for value in (self.weight, *self.weights):
            if not 0 < value < float("inf"):
                raise ValueError(f"weights must be positive and finite, got {value}")

    def train(self, steps: int, rate: float) -> TrainConfig:
        return TrainConfig(
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=rate,
            warmup_steps=min(50, steps),
            ema_decay=0.99,
            checkpoint_every=300,
            keep_checkpoints=1,
            tracker=None,
            progress=False,
            device="cpu",
        )


class SteeringModels:
    """Models and data of the bench.

    Args:
        data: episodes that the rewards are learned from.
        work: folder of trained models and collected data; what is finished there is taken as it is.
    """

    def __init__(self, config: SteeringConfig, data: Path, work: Path) -> None:
        self.config, self.data, self.work = config, data, work
        self._windows: dict[int, dict[str, PlannerData]] = {}

    @cached_property
    def planner(self) -> str:
        return str(find_planner(self.config.planner, self.config.env))

    def reward(self, taste: Taste) -> str:
        """Folder of the reward learned for a taste."""
        config, folder = self.config, self.work / f"reward-{taste}"
        if not (folder / "README.md").is_file():
            spec = envs.spec(config.env)
            linear = taste == "goal-seeking"  # progress is linear in what a step's inputs say, effort is not
            train, held_out = self._segments(taste)
            if linear:
                options: dict[str, Any] = {"network": "linear", "sparsity": 0.005}
            else:
                # How one moves is the agent's own matter: what stands around it would only be noise to learn from.
                spans = {} if spec.layout is None else spec.layout.entries
                around = tuple(span for name, span in spans.items() if name not in OWN_MOTION)
                options = {"network": "mlp", "hidden": 64, "rings": (), "velocity": None, "ignored": around}
            train_reward(
                RewardConfig.for_spec(spec, members=1, **options),
                train,
                held_out,
                output_dir=folder,
                settings=replace(
                    config.train(config.reward_steps, 2e-2 if linear else 3e-3),
                    weight_decay=0.0 if linear else 0.1,
                    eval_every=max(1, config.reward_steps // 7),
                    checkpoint_every=0,
                    overwrite=True,
                ),
            )
        return str(folder)

    def _segments(self, taste: Taste) -> tuple[Preferences, Preferences]:
        """Comparisons of recorded segments, to train on and held out."""
        episodes = read_hdf5(self.data)
        cut = max(1, int(0.85 * len(episodes)))
        sides, teacher = [], Teacher()
        for number, side in enumerate((episodes[:cut], episodes[cut:])):
            found = label_episodes(
                side,
                pairs=self.config.pairs if number == 0 else max(40, self.config.pairs // 5),
                score=goal_seeking if taste == "goal-seeking" else unhurried,
                teacher=teacher,
                rng=np.random.default_rng((21, number)),
                length=20,
                bayes_accuracy=None if number else 0.9,
            )
            teacher = Teacher(beta=found.beta)
            sides.append(found.data)
        return sides[0], sides[1]

    def collected(self, name: str, *, first: int, episodes: int) -> Path:
        """Episodes of a cautious or a reckless behaviour policy."""
        path = self.work / f"{name}-{first}.hdf5"
        if not path.is_file():
            knobs: dict[str, Any] = {"behaviour": "proportional", "noise": (0.0, 0.1)}
            if name == "cautious":
                margin = (self.config.cautious_margin, self.config.cautious_margin)
                knobs = {"behaviour": "mpc", "margin": margin, "noise": (0.0, 0.2), "candidates": 150}
            collect(
                CollectConfig(env=self.config.env, out=path, episodes=episodes, seed=first, skill=(0.75, 1.0), **knobs),
                progress=False,
            )
        return path

    def windows(self, *, first: int, episodes: int) -> dict[str, PlannerData]:
        """Windows of cautious and reckless episodes whose seeds start at `first`."""
        if first not in self._windows:
            planner = Planner.from_pretrained(self.planner)
            self._windows[first] = {
                name: data_for(
                    planner,
                    [self.collected(name, first=first, episodes=episodes)],
                    labels="only",
                    start_every=4,
                    progress=False,
                )
                for name in ("cautious", "reckless")
            }
        return self._windows[first]

    def styles(self) -> dict[str, Path]:
        """Folders of the cautious and of the reckless planner, both trained on from the given one."""
        config = self.config
        folders = {name: self.work / f"planner-{name}" for name in ("cautious", "reckless")}
        for name, folder in folders.items():
            if not (folder / "planner.json").is_file():
                fine_tune(
                    Planner.from_pretrained(self.planner),
                    self.windows(first=TRAIN_SEEDS, episodes=config.collected)[name],
                    out=folder,
                    train=config.train(config.tune_steps, 3e-4),
                    resume=True,
                )
        return folders

    def relative(self) -> Path:
        """Folder of the relative reward that turns the reckless planner into the cautious one."""
        config, folder = self.config, self.work / "relative"
        if not (folder / "relative.json").is_file():
            planners = {name: Planner.from_pretrained(path) for name, path in self.styles().items()}
            data = self.windows(first=TRAIN_SEEDS, episodes=config.collected)
            both = MixedWindows([part for side in data.values() for part in side.windows.parts])
            fit_relative(
                planners["reckless"],
                planners["cautious"],
                replace(data["cautious"], windows=both),
                out=folder,
                train=config.train(config.relative_steps, 2e-3),
                resume=True,
            )
        return folder

    def aligned(self) -> Path:
        """Folder of the given planner, aligned with the unhurried teacher."""
        config, folder = self.config, self.work / "aligned"
        if not (folder / "planner.json").is_file():
            align_planner(
                Planner.from_pretrained(self.planner),
                self.windows(first=TRAIN_SEEDS, episodes=config.collected)["cautious"],
                taste_score("unhurried", envs.spec(config.env)),
                out=folder,
                train=config.train(config.dpo_steps, 1e-4),
                align=AlignConfig(pairs=config.dpo_pairs),
                dpo=DPOConfig(beta=config.dpo_beta),
                resume=True,
            )
        return folder

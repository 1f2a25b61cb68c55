"""What `bench steering` measures with: rewards, planners and their data, made once and kept in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from diffdecide.app.agent import AgentConfig
from diffdecide.app.agent_policy import PolicyConfig, agent_policy, find_planner
from diffdecide.app.alignment import AlignConfig, Taste, align_planner, data_for, fine_tune, fit_relative, taste_score
from diffdecide.app.bench.steering_config import SteeringConfig
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
# The plan as it comes from the diffusion model: nothing else is ranked, projected or filtered.
BARE: Mapping[str, Any] = {"task_weight": 0.0, "clearance_weight": 0.0, "project": False}
RELABELLED_SEED = 3500
STYLES = ("cautious", "reckless")
TRAIN_SEEDS, HELD_OUT_SEEDS = 3000, 4000  # of the cautious and the reckless episodes


class SteeringModels:
    """Models and data of the bench.

    Args:
        data: episodes that the rewards are learned from.
        work: folder of trained models and collected data; what is finished there is taken as it is.
    """

    def __init__(self, config: SteeringConfig, data: Path, work: Path) -> None:
        self.config, self.data, self.work = config, data, work
        self._windows: dict[int, dict[str, PlannerData]] = {}

    def _train(self, steps: int, rate: float) -> TrainConfig:
        return TrainConfig(
            steps=steps,
            batch_size=self.config.batch_size,
            learning_rate=rate,
            warmup_steps=min(50, steps),
            ema_decay=0.99,
            checkpoint_every=300,
            keep_checkpoints=1,
            tracker=None,
            progress=False,
            device="cpu",
        )

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
                    self._train(config.reward_steps, 2e-2 if linear else 3e-3),
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
            self._windows[first] = {
                name: self._windows_of([self.collected(name, first=first, episodes=episodes)]) for name in STYLES
            }
        return self._windows[first]

    def _windows_of(self, files: Sequence[Path]) -> PlannerData:
        planner = Planner.from_pretrained(self.planner)
        return data_for(planner, files, labels="only", start_every=4, progress=False)

    def styles(self) -> dict[str, Path]:
        """Folders of the cautious and of the reckless planner, both trained on from the given one.

        The cautious one is trained in two rounds (DAgger: Ross et al., 2011): a planner that has only seen the MPC
        drive does not know what to do where its own mistakes take it, and that is where cost comes from.
        """
        return {
            "cautious": self._tuned("planner-cautious", self._first, lambda: [self._shown["cautious"], self._own]),
            "reckless": self._tuned("planner-reckless", self.planner, lambda: [self._shown["reckless"]]),
        }

    @cached_property
    def _first(self) -> str:
        """Folder of the cautious planner after its first round."""
        return str(self._tuned("planner-cautious-first", self.planner, lambda: [self._shown["cautious"]]))

    @property
    def _shown(self) -> dict[str, PlannerData]:
        return self.windows(first=TRAIN_SEEDS, episodes=self.config.collected)

    @cached_property
    def _own(self) -> PlannerData:
        """Windows of what the cautious planner did by itself, relabelled."""
        return self._windows_of([self.relabelled(Path(self._first))])

    def _tuned(self, name: str, start: str, data: Callable[[], Sequence[PlannerData]]) -> Path:
        """Folder of the planner `start`, trained on; the data are only made where it is not there yet."""
        folder = self.work / name
        if not (folder / "planner.json").is_file():
            train = self._train(self.config.tune_steps, 3e-4)
            fine_tune(Planner.from_pretrained(start), _together(data()), out=folder, train=train, resume=True)
        return folder

    def relabelled(self, driver: Path) -> Path:
        """Episodes that the bare planner in `driver` drives, with what the cautious MPC would have done."""
        path, margin = self.work / f"cautious-own-{RELABELLED_SEED}.hdf5", self.config.cautious_margin
        if not path.is_file():
            settings = {**BARE, "candidates": self.config.relative_candidates}
            operator = AgentConfig(filtered=False)
            policy = PolicyConfig(planner=str(driver), settings=settings, agent=operator)
            collect(
                CollectConfig(
                    env=self.config.env,
                    out=path,
                    episodes=self.config.relabelled,
                    seed=RELABELLED_SEED,
                    behaviour="policy",
                    margin=(margin, margin),
                    candidates=150,
                ),
                driver=partial(agent_policy, policy),
                progress=False,
            )
        return path

    def relative(self) -> Path:
        """Folder of the relative reward that turns the reckless planner into the cautious one."""
        config, folder = self.config, self.work / "relative"
        if not (folder / "relative.json").is_file():
            planners = {name: Planner.from_pretrained(path) for name, path in self.styles().items()}
            fit_relative(
                planners["reckless"],
                planners["cautious"],
                _together([*self._shown.values(), self._own]),  # the situations that either planner gets into
                out=folder,
                train=self._train(config.relative_steps, 2e-3),
                resume=True,
            )
        return folder

    def aligned(self) -> Path:
        """Folder of the given planner, aligned with the unhurried teacher."""
        config, folder = self.config, self.work / "aligned"
        if not (folder / "planner.json").is_file():
            align_planner(
                Planner.from_pretrained(self.planner),
                self._shown["cautious"],
                taste_score("unhurried", envs.spec(config.env)),
                out=folder,
                train=self._train(config.dpo_steps, 1e-4),
                align=AlignConfig(pairs=config.dpo_pairs),
                dpo=DPOConfig(beta=config.dpo_beta),
                resume=True,
            )
        return folder


def _together(data: Sequence[PlannerData]) -> PlannerData:
    """The windows of all, with the first one's facts."""
    return replace(data[0], windows=MixedWindows([part for side in data for part in side.windows.parts]))

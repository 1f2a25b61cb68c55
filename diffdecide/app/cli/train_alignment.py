"""`diffdecide train relative` and `train dpo`: rewards between two planners, planners aligned with a teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffdecide.train import TrainConfig

_RELATIVE = TrainConfig(steps=2000, batch_size=128, learning_rate=1e-3, ema_decay=0.99, warmup_steps=50)
_DPO = TrainConfig(steps=400, batch_size=128, learning_rate=1e-4, ema_decay=0.99, warmup_steps=50)


@dataclass(frozen=True, kw_only=True)
class _OnWindows:
    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """HDF5 files of one agent, from `diffdecide collect`."""
    out: Path
    """Folder of the result; checkpoints go to OUT/training."""
    labels: Literal["only", "prefer", "ignore"] = "only"
    """What the MPC's plans in the data do; files without any are taken as they were driven."""
    start_every: int = 4
    """Windows start at every n-th step."""
    resume: bool = False
    """Go on from the last checkpoint in OUT."""

    def _planner(self, folder: Path) -> Any:
        from diffdecide.planner import Planner

        if folder.resolve() == self.out.resolve():
            raise ValueError(f"--out {self.out} is the folder of a planner that is needed as it is: name another one")
        return Planner.from_pretrained(folder)

    def _windows(self, planner: Any, progress: bool) -> Any:
        from diffdecide.app.alignment import data_for
        from diffdecide.files import require_writable_folder

        missing = [str(path) for path in self.data if not path.is_file()]
        if missing or not self.data:
            raise ValueError(f"no such data file: {', '.join(missing)}" if missing else "expected a data file")
        require_writable_folder(self.out)
        return data_for(planner, self.data, labels=self.labels, start_every=self.start_every, progress=progress)


@dataclass(frozen=True, kw_only=True)
class TrainRelative(_OnWindows):
    """The relative reward of two planners: what turns the base into the expert (Nuti et al. 2023).

    Give data of both planners: the reward is fitted where either of them drives.
    """

    base: Path
    """Folder of the planner that shall be steered."""
    expert: Path
    """Folder of the planner that it shall be steered towards."""
    width: int = 256
    depth: int = 3
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: _RELATIVE)

    def execute(self) -> int:
        from diffdecide.app.alignment import fit_relative

        base, expert = self._planner(self.base), self._planner(self.expert)
        data = self._windows(base, self.train.progress)
        _, result = fit_relative(
            base,
            expert,
            data,
            out=self.out,
            train=self.train,
            width=self.width,
            depth=self.depth,
            resume=self.resume,
        )
        explained = result.metrics.get("explained", float("nan"))
        print(f"{result.steps} steps, {explained:.0%} of the difference explained; written to {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class TrainDPO(_OnWindows):
    """A planner aligned with preferences between its own plans (Diffusion-DPO, Wallace et al. 2023).

    It draws two plans in each of many recorded situations, and a scripted teacher or a learned reward prefers one.
    """

    planner: Path
    """Folder of the planner to start from, which also is the reference."""
    teacher: Literal["unhurried", "goal-seeking"] = "unhurried"
    """Whose taste it is."""
    reward: Path | None = None
    """A folder with a learned reward that answers in the teacher's place."""
    pairs: int = 4000
    """Situations in which two plans are drawn."""
    accuracy: float = 0.9
    """Bayes rate of the teacher, by which its rationality is chosen; 1 is always right."""
    temperature: float = 1.0
    """Of the plans that are compared."""
    beta: float = 20.0
    """How strongly preferences pull against the reference."""
    anchor: float = 0.0
    """Weight of the ordinary loss on preferred plans."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: _DPO)

    def execute(self) -> int:
        from diffdecide.app.alignment import AlignConfig, align_planner, taste_score
        from diffdecide.app.rewards import RewardChoice
        from reward_models.dpo import DPOConfig
        from safety.envs import spec

        align = AlignConfig(pairs=self.pairs, accuracy=self.accuracy, temperature=self.temperature)
        dpo = DPOConfig(beta=self.beta, anchor=self.anchor)
        planner = self._planner(self.planner)
        reward = None if self.reward is None else RewardChoice(folder=str(self.reward)).load()
        data = self._windows(planner, self.train.progress)
        env_spec = spec(data.environments[0])
        score = taste_score(self.teacher, env_spec)
        if reward is not None:
            score = reward.preference(env_spec, planner).score
        _, result, bayes = align_planner(
            planner, data, score, out=self.out, train=self.train, align=align, dpo=dpo, resume=self.resume
        )
        right = result.metrics.get("accuracy", float("nan"))
        print(
            f"{result.steps} steps, moved towards the preferred plan in {right:.0%} of the pairs "
            f"(the teacher's Bayes rate is {bayes:.0%}); written to {self.out}"
        )
        return 0

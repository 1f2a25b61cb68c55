"""`diffdecide train`: planners, cloned policies, the language bridge.

All of them run on one process, or on several: `torchrun --nproc_per_node 2 -m diffdecide.app train planner ...`, or
`accelerate launch` with the same words.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffdecide.app.cli.train_alignment import TrainDPO, TrainRelative
from diffdecide.app.cli.train_critic import TrainCritic
from diffdecide.app.cli.train_reward import TrainReward
from diffdecide.app.cli.train_sequence import TrainSequence, TrainValue
from diffdecide.app.clone import KIND_FEATURES, CloneConfig
from diffdecide.app.training import ModelConfig
from diffdecide.features import FeatureConfig
from diffdecide.plan import PlanRows
from diffdecide.train import TrainConfig
from lm_bridge.train import TrainBridgeConfig

_DEFAULTS = TrainConfig(steps=8000, batch_size=512, learning_rate=6e-4)


@dataclass(frozen=True, kw_only=True)
class _OnData:
    """What all training on data files shares."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """HDF5 files of one agent, from `diffdecide collect`."""
    out: Path
    """Folder of the model; checkpoints go to OUT/training."""
    resume: bool = False
    """Go on from the last checkpoint in OUT."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: _DEFAULTS)
    rows: PlanRows = field(default_factory=PlanRows)
    features: FeatureConfig = field(default_factory=lambda: FeatureConfig(max_objects=14))
    labels: Literal["only", "prefer", "ignore"] = "only"
    """What the MPC's plans in the data do, see `diffdecide.data.windows.WindowConfig`."""
    start_every: int = 1
    """Windows start at every n-th step."""

    def _read(self) -> tuple[Any, Any]:
        """The windows of the data files, and the goal space."""
        from diffdecide.app.training import planner_data
        from diffdecide.files import require_writable_folder
        from lm_bridge.goals import GoalSpace

        missing = [str(path) for path in self.data if not path.is_file()]
        if missing or not self.data:
            raise ValueError(
                f"no such data file: {', '.join(missing)}" if missing else "expected at least one data file"
            )
        require_writable_folder(self.out)
        goals = GoalSpace()
        main = _is_main_process(self.train.device)
        data = planner_data(
            self.data,
            rows=self.rows,
            features=self.features,
            goals=goals,
            labels=self.labels,
            start_every=self.start_every,
            progress=self.train.progress and main,
        )
        return data, goals

    def _finish(self, kind: str, data: Any, network: Any, model: dict[str, Any], result: Any) -> None:
        """Record the facts and say where everything is; in the main process only."""
        from diffdecide.app.facts import training_facts, write_facts

        if not _is_main_process(self.train.device):
            return
        count = sum(parameter.numel() for parameter in network.parameters())
        facts = training_facts(
            kind, data=data, files=self.data, train=self.train, result=result, parameters=count, model=model
        )
        write_facts(self.out, facts)
        loss = result.metrics.get("loss")
        told = "" if loss is None else f", loss {loss:.4f}"
        print(f"{result.steps} steps in {result.seconds / 60:.1f} minutes{told}; written to {self.out}")


@dataclass(frozen=True, kw_only=True)
class TrainPlanner(_OnData):
    """A diffusion planner, on data files of one agent."""

    denoiser: Literal["mlp", "dit", "unet"] = "mlp"
    denoiser_options: str = "{}"
    """Options of that network as JSON, such as '{"width": 512}'."""
    context_dim: int = 128
    prediction: Literal["sample", "epsilon", "v"] = "sample"
    target_weight: float = 0.1
    """Weight of the pointer's loss."""

    def __post_init__(self) -> None:
        _options(self.denoiser_options)

    def execute(self) -> int:
        from diffdecide.app.training import train_planner

        model = ModelConfig(
            denoiser=self.denoiser,
            denoiser_options=_options(self.denoiser_options),
            tokens_options={"pointer_features": KIND_FEATURES},
            context_dim=self.context_dim,
            prediction=self.prediction,
            target_weight=self.target_weight,
        )
        self._try_network(model)
        data, goals = self._read()
        planner, result = train_planner(
            data,
            out=self.out,
            rows=self.rows,
            features=self.features,
            goals=goals,
            model=model,
            train=self.train,
            resume=self.resume,
        )
        self._finish("planner", data, planner.model, asdict(model), result)
        return 0

    def _try_network(self, model: ModelConfig) -> None:
        """Build the network once, so that a wrong option is told before the data are read."""
        from diffdecide.diffusion import build_denoiser

        try:
            build_denoiser(model.denoiser, self.rows.rows, 2, model.context_dim, **model.denoiser_options)
        except TypeError as error:
            raise ValueError(f"--denoiser-options of {model.denoiser}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class TrainCloning(_OnData):
    """Behaviour cloning on the same windows: the baseline without diffusion and ranking."""

    model: Annotated[CloneConfig, tyro.conf.arg(name="")] = field(default_factory=CloneConfig)

    def execute(self) -> int:
        from diffdecide.app.clone import train_cloning

        data, goals = self._read()
        planner, result = train_cloning(
            data,
            out=self.out,
            rows=self.rows,
            features=self.features,
            goal_space=goals.fingerprint,
            model=self.model,
            train=self.train,
            resume=self.resume,
        )
        self._finish("cloning", data, planner.model, asdict(self.model), result)
        return 0


@dataclass(frozen=True, kw_only=True)
class TrainBridge:
    """The language bridge, on sentences of the grammar; no data file is needed."""

    out: Path
    """Folder of the bridge."""
    resume: bool = False
    """Go on from the last checkpoint in OUT."""
    config: Annotated[TrainBridgeConfig, tyro.conf.arg(name="")] = field(default_factory=TrainBridgeConfig)

    def execute(self) -> int:
        from diffdecide.files import require_writable_folder
        from lm_bridge.train import train_bridge

        require_writable_folder(self.out)
        main = _is_main_process(self.config.device)
        result, figures = train_bridge(self.config, self.out, resume=self.resume)
        if main:
            told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            print(f"{result.steps} steps in {result.seconds / 60:.1f} minutes; {told}; written to {self.out}")
        return 0


def _is_main_process(device: str) -> bool:
    """Whether this process is the one that writes; joins the group of processes that torchrun has started.

    Without a GPU accelerate joins it only when told that the CPU is meant; each process would train alone.
    """
    import torch
    from accelerate import PartialState

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    cpu = device == "cpu" or (several and not torch.cuda.is_available())
    return bool(PartialState(cpu=cpu).is_main_process)


def _options(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--denoiser-options is not JSON ({error}): {text!r}") from None
    if not isinstance(value, dict):
        raise ValueError(f"--denoiser-options must be a JSON object, got {text!r}")
    return value


COMMANDS = {
    "planner": TrainPlanner,
    "bridge": TrainBridge,
    "bc": TrainCloning,
    "sequence": TrainSequence,
    "value": TrainValue,
    "reward": TrainReward,
    "relative": TrainRelative,
    "dpo": TrainDPO,
    "critic": TrainCritic,
}

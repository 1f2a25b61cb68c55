"""`diffdecide train sequence` and `diffdecide train value`: planners for any recorded data, and their critics."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffdecide.app.sequence_training import SequenceTraining
from diffdecide.app.training import ModelConfig
from diffdecide.train import TrainConfig

_DEFAULTS = TrainConfig(steps=6000, batch_size=256, learning_rate=6e-4)


@dataclass(frozen=True, kw_only=True)
class TrainSequence:
    """A planner without geometry, on data files of any one environment (DSRL, Minari, OmniSafe)."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Data files of one environment."""
    out: Path
    """Folder of the model; checkpoints go to OUT/training."""
    env: str | None = None
    """Environment id, where neither the episodes nor a DSRL file name say it."""
    resume: bool = False
    """Go on from the last checkpoints in OUT."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: _DEFAULTS)
    parts: Annotated[SequenceTraining, tyro.conf.arg(name="")] = field(default_factory=SequenceTraining)
    history: int = 2
    """Control steps of the past that a plan begins with."""
    dense: int = 8
    """Rows of one control step."""
    strided: int = 6
    """Rows behind them."""
    stride: int = 4
    """Control steps of such a row."""
    conditioning: Literal["horizon", "end"] = "horizon"
    """Return and budget: discounted over 200 steps, or summed up to the end of the episode."""
    actions: Literal["plan", "inverse"] = "plan"
    """Act as planned, or as inverse dynamics reads from the planned states."""
    start_every: int = 1
    """Windows start at every n-th step."""
    denoiser: Literal["mlp", "dit", "unet"] = "mlp"
    denoiser_options: str = "{}"
    """Options of that network as JSON, such as '{"width": 512}'."""
    context_dim: int = 128
    prediction: Literal["sample", "epsilon", "v"] = "sample"

    def __post_init__(self) -> None:
        _json_object(self.denoiser_options)

    def execute(self) -> int:
        from diffdecide.app.sequence_training import read_episodes, sequence_data, train_sequence
        from diffdecide.files import require_writable_folder
        from diffdecide.sequence_format import SequenceFormat

        _check_files(self.data)
        require_writable_folder(self.out)
        episodes, spec = read_episodes(self.data, self.env)
        form = SequenceFormat(
            spec=spec,
            history=self.history,
            dense=self.dense,
            strided=self.strided,
            stride=self.stride,
            conditioning=self.conditioning,
        )
        _, results = train_sequence(
            sequence_data(episodes, form, start_every=self.start_every),
            out=self.out,
            train=self.train,
            model=ModelConfig(
                denoiser=self.denoiser,
                denoiser_options=_json_object(self.denoiser_options),
                context_dim=self.context_dim,
                prediction=self.prediction,
            ),
            options=self.parts,
            resume=self.resume,
            actions=self.actions,
        )
        _tell(results, self.out)
        return 0


@dataclass(frozen=True, kw_only=True)
class TrainValue:
    """The critic of a planner, anew or on other data; the planner itself stays as it is.

    It ranks candidates by the return and cost that follow them: `value_weight` in planner.json says how much.
    """

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Data files of the planner's agent (or, for a sequence planner, its environment)."""
    planner: Path
    """Folder of the planner; its critic is replaced."""
    resume: bool = False
    """Go on from the last checkpoint in PLANNER/training/critic."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: _DEFAULTS)

    def execute(self) -> int:
        from diffdecide.app.plan_critic import train_plan_critic
        from diffdecide.app.sequence_training import retrain_critic
        from diffdecide.files import require_writable_folder

        _check_files(self.data)
        if self.planner.is_dir():
            require_writable_folder(self.planner)
        # A sequence planner has a format of its own; every other planner is a `diffdecide.planner.Planner`.
        train = train_plan_critic if (self.planner / "planner.json").is_file() else retrain_critic
        result = train(self.data, self.planner, self.train, resume=self.resume)
        _tell({"critic": result}, self.planner)
        return 0


def _check_files(files: tuple[Path, ...]) -> None:
    if not files:
        raise ValueError("expected at least one data file")
    missing = [str(path) for path in files if not path.exists()]
    if missing:
        raise ValueError(f"no such data file: {', '.join(missing)}")


def _tell(results: dict[str, Any], folder: Path) -> None:
    from accelerate import PartialState

    if not PartialState().is_main_process:
        return
    for name, result in results.items():
        loss = result.metrics.get("loss")
        told = "" if loss is None else f", loss {loss:.4f}"
        print(f"{name}: {result.steps} steps in {result.seconds / 60:.1f} minutes{told}")
    print(f"written to {folder}")


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--denoiser-options is not JSON ({error}): {text!r}") from None
    if not isinstance(value, dict):
        raise ValueError(f"--denoiser-options must be a JSON object, got {text!r}")
    return value

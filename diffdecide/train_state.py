"""What a training run leaves on disk and continues from: averaged weights, checkpoints, the exported model."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffdecide.checkpoints import Checkpoint, CheckpointError, checkpoint_paths, load_checkpoint, save_checkpoint


class Average:
    """Exponential moving average of the trained parameters, with a decay that warms up."""

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.shadow = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, [parameter.detach() for parameter in self.parameters], 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        torch._foreach_copy_([parameter.detach() for parameter in self.parameters], self.shadow)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters hold the average inside the block."""
        held = [parameter.detach().clone() for parameter in self.parameters]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_([parameter.detach() for parameter in self.parameters], held)


@dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
        module: the module in training.
        named: its trained parameters by name.
        optimizer: AdamW, unwrapped.
        average: moving average of the parameters.
        accelerator: for the main process and the gradient scaler.
    """

    module: nn.Module
    named: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: Average
    accelerator: Accelerator

    def store(self, folder: Path, step: int, run: Mapping[str, Any], *, keep: int) -> None:
        """Write a checkpoint from the main process; `run` holds plain values that name the run."""
        if self.accelerator.is_main_process:
            tensors = {f"buffer/{name}": buffer for name, buffer in _buffers(self.module).items()}
            for (name, parameter), shadow in zip(self.named.items(), self.average.shadow, strict=True):
                tensors[f"weight/{name}"], tensors[f"average/{name}"] = parameter, shadow
                for moment, value in self.optimizer.state.get(parameter, {}).items():
                    tensors[f"optimizer/{moment}/{name}"] = value
            scaler = self.accelerator.scaler
            meta = {**run, "step": step, "scaler": None if scaler is None else scaler.state_dict()}
            save_checkpoint(folder, step, tensors, meta, keep=keep)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def restore(self, last: Checkpoint, run: Mapping[str, Any]) -> int:
        """Put a checkpoint's state in place and return the step it was taken at.

        Raises:
            CheckpointError: the checkpoint belongs to a run with other settings, or to another network.
        """
        _check_same_run(last, run)
        self._check_same_network(last)
        for name, buffer in _buffers(self.module).items():
            buffer.copy_(last.tensors[f"buffer/{name}"])
        for (name, parameter), shadow in zip(self.named.items(), self.average.shadow, strict=True):
            parameter.copy_(last.tensors[f"weight/{name}"])
            shadow.copy_(last.tensors[f"average/{name}"])
            self.optimizer.state[parameter] = {
                moment: last.tensors[f"optimizer/{moment}/{name}"].to(parameter.device)
                for moment in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer/{moment}/{name}" in last.tensors
            }
        if self.accelerator.scaler is not None and last.meta["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(last.meta["scaler"])
        return int(last.meta["step"])

    def _check_same_network(self, last: Checkpoint) -> None:
        wanted = {f"weight/{name}": tuple(parameter.shape) for name, parameter in self.named.items()}
        wanted |= {f"buffer/{name}": tuple(buffer.shape) for name, buffer in _buffers(self.module).items()}
        given = {
            name: tuple(tensor.shape)
            for name, tensor in last.tensors.items()
            if name.startswith(("weight/", "buffer/"))
        }
        odd = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        if odd:
            raise CheckpointError(f"checkpoint {last.path} belongs to another network: {', '.join(odd[:5])} do not fit")


def _check_same_run(last: Checkpoint, run: Mapping[str, Any]) -> None:
    changed = []
    for name, now in run.items():
        before = last.meta.get(name)
        if isinstance(now, Mapping) and isinstance(before, Mapping):
            changed += [f"{key}={before.get(key)} (now {now[key]})" for key in now if before.get(key) != now[key]]
        elif before != now:
            changed.append(f"{name}={before} (now {now})")
    if changed:
        raise CheckpointError(f"checkpoint {last.path} belongs to a run with other settings: {', '.join(changed)}")


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    persistent = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name in persistent}


def open_folder(folder: Path, accelerator: Accelerator, *, resume: bool, overwrite: bool) -> Checkpoint | None:
    """Make the folder ready in the main process, and read the checkpoint to continue from, if any."""
    found = checkpoint_paths(folder / "checkpoints")
    if found and not resume and not overwrite:
        raise ValueError(
            f"{folder} already holds checkpoints up to {found[-1].name}: pass resume=True to continue that run, "
            "overwrite=True in the configuration to start anew, or another folder"
        )
    last = load_checkpoint(found[-1]) if found and resume else None
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ValueError(f"output_dir {folder} cannot be written: {error}") from error
        if not resume:
            for path in found:
                path.unlink()
            (folder / "metrics.jsonl").unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    return last


def export(module: nn.Module, folder: Path) -> None:
    """Write the model into `folder`, each file whole."""
    temporary = Path(tempfile.mkdtemp(prefix=".export_", dir=folder))
    try:
        module.save_pretrained(temporary)  # type: ignore[operator]
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                place = folder / path.relative_to(temporary)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

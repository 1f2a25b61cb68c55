"""One training loop for everything that owns a `loss(batch, generator)`: planners, critics, adapters.

A step is a function of (seed, step) alone: which samples, which noise, which learning rate. So a run that was killed
and resumed ends with the same bits on a CPU as one that was not, and two processes train what one process with twice
the batch trains.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from tqdm.auto import tqdm

from diffdecide import noise
from diffdecide.train_log import TrainLog
from diffdecide.train_state import Average, TrainState, export, open_folder

# Settings that may differ between a run and its continuation, since no step depends on them.
_FREE = {"log_every", "eval_every", "checkpoint_every", "keep_checkpoints", "tracker", "progress", "overwrite"}
# `batch_size` is among them because the product with the number of processes is what counts.
_FREE |= {"device", "batch_size", "find_unused_parameters"}

EvalFn = Callable[[nn.Module, int], Mapping[str, float]]


class Trainable(Protocol):
    """A module that `fit` can train; it is an `nn.Module` as well."""

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]: ...

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> Any: ...


class Dataset(Protocol):
    """A finite data set. `__getitems__(indices) -> batch` is used instead of `__getitem__` where it exists."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run.

    Attributes:
        steps: optimizer steps.
        batch_size: samples per step and process.
        learning_rate: peak of the AdamW learning rate (Loshchilov and Hutter 2019).
        final_rate: share of the peak that the cosine ends at.
        warmup_steps: steps of linear warm-up.
        weight_decay: on matrices only, not on biases and norms.
        clip_norm: limit of the gradient's norm; 0 does not clip.
        ema_decay: decay of the averaged weights, reached by min(ema_decay, (1 + step) / (10 + step)).
        seed: names the order of the data and the noise.
        mixed_precision: "no", "fp16" or "bf16".
        device: "auto" takes what accelerate finds, "cpu" insists.
        log_every, eval_every, checkpoint_every: steps between; 0 is never (a checkpoint is still written at the end).
        keep_checkpoints: how many to keep.
        tracker: an accelerate tracker, "tensorboard" by default; None for none.
        progress: show a progress bar.
        overwrite: start anew in a folder that holds checkpoints of another run.
        find_unused_parameters: for modules in which some parameters take no part in the loss, several processes only.
    """

    steps: int = 10_000
    batch_size: int = 256
    learning_rate: float = 3e-4
    final_rate: float = 0.02
    warmup_steps: int = 200
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    mixed_precision: str = "no"
    device: str = "auto"
    log_every: int = 50
    eval_every: int = 0
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    tracker: str | None = "tensorboard"
    progress: bool = True
    overwrite: bool = False
    find_unused_parameters: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_steps", "log_every", "eval_every", "checkpoint_every", "clip_norm", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate=}")
        if not 0 <= self.final_rate <= 1:
            raise ValueError(f"final_rate must lie in [0, 1], got {self.final_rate=}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay=}")
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            raise ValueError(f"mixed_precision must be no, fp16 or bf16, got {self.mixed_precision!r}")
        if self.device not in ("auto", "cpu"):
            raise ValueError(f"device must be auto or cpu, got {self.device!r}")

    def rate(self, step: int) -> float:
        """Learning rate of step `step` (0 is the first): linear warm-up, then a cosine."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / (self.warmup_steps + 1)
        share = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        low = self.final_rate
        return self.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))

    def stream(self) -> dict[str, Any]:
        """The settings that steps depend on; a continuation must share them."""
        return {name: value for name, value in asdict(self).items() if name not in _FREE}


@dataclass(frozen=True)
class FitResult:
    """What came of a training run.

    Attributes:
        steps: steps done in all, those before a resume included.
        resumed_from: step of the checkpoint that the run continued from, None for a run from the start.
        metrics: the last line of `metrics.jsonl`.
        output_dir: holds the averaged weights (`from_pretrained`), `metrics.jsonl` and `checkpoints/`.
        seconds: wall-clock time of this call.
    """

    steps: int
    resumed_from: int | None
    metrics: dict[str, float]
    output_dir: Path
    seconds: float


class _Loss(nn.Module):
    """Gives a module's loss as `forward`, which is what accelerate and DistributedDataParallel wrap."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return self.module.loss(batch, generator)  # type: ignore[operator]


def fit(
    module: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    output_dir: str | os.PathLike[str],
    resume: bool = False,
    eval_fn: EvalFn | None = None,
) -> FitResult:
    """Train `module` on `dataset` and leave it holding the averaged weights.

    Runs on one CPU, on several processes (torchrun, accelerate launch) and on GPUs. Parameters that do not require a
    gradient are neither trained nor stored in checkpoints.

    Args:
        module: owns `loss(batch, generator) -> dict with a differentiable "loss"` and `save_pretrained(folder)`.
            Its other entries are logged. Draw noise through `diffdecide.noise` to be independent of process counts.
        dataset: `__len__` and either `__getitems__(indices) -> batch dict` (fast) or `__getitem__`, which is collated.
        output_dir: receives the averaged weights at the end, `metrics.jsonl`, `checkpoints/`, tracker files.
        resume: continue from the last checkpoint in `output_dir`; without one, start.
        eval_fn: (module with averaged weights, step) -> figures to log; called in the main process.

    Raises:
        ValueError: a module or data set that cannot be trained, a folder that cannot be written or that holds
            another run.
        CheckpointError: (a ValueError) a corrupt checkpoint, or one of a run with other settings.
        FloatingPointError: the loss is no longer finite.
    """
    began = time.perf_counter()
    if not (callable(getattr(module, "loss", None)) and callable(getattr(module, "save_pretrained", None))):
        raise ValueError(f"module must have loss() and save_pretrained(), {type(module).__name__} lacks one of them")
    if len(dataset) < 1:
        raise ValueError("the data set is empty")
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not named:
        raise ValueError(f"{type(module).__name__} has no parameter that requires a gradient")
    folder = Path(output_dir)
    accelerator = Accelerator(
        cpu=config.device == "cpu",
        mixed_precision=config.mixed_precision,
        log_with=config.tracker,
        project_dir=str(folder),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=config.find_unused_parameters)],
    )
    last = open_folder(folder, accelerator, resume=resume, overwrite=config.overwrite)
    optimizer = torch.optim.AdamW(_groups(named.values(), config), lr=config.learning_rate, fused=_can_fuse(named))
    wrapped, prepared = accelerator.prepare(_Loss(module), optimizer)
    average = Average(list(named.values()), config.ema_decay)
    state = TrainState(module, named, optimizer, average, accelerator)
    rows = config.batch_size * accelerator.num_processes
    run = {"config": config.stream(), "samples": len(dataset), "rows": rows}
    start = 0 if last is None else state.restore(last, run)
    if config.tracker:
        accelerator.init_trackers("tracker")
    batches = _Batches(dataset, config, accelerator)
    log = TrainLog(folder / "metrics.jsonl", start, accelerator)
    bar = tqdm(
        total=config.steps, initial=start, disable=not (config.progress and accelerator.is_main_process), unit="step"
    )

    module.train()
    with bar, noise.seeded(config.seed):
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.rate(step)
            # Layers that draw from the global state (dropout) repeat as well.
            torch.manual_seed(noise.key(config.seed, step, accelerator.process_index))
            parts = wrapped(*batches.at(step))
            accelerator.backward(parts["loss"])
            norm = accelerator.clip_grad_norm_(named.values(), config.clip_norm) if config.clip_norm else None
            prepared.step()
            prepared.zero_grad()
            average.update(step)
            log.add(parts, norm)
            done = step + 1
            bar.update()
            ending = done == config.steps
            if ending or (config.log_every and done % config.log_every == 0):
                bar.set_postfix(loss=f"{log.write(done, config.rate(step))['loss']:.4f}", refresh=False)
            if eval_fn is not None and (ending or (config.eval_every and done % config.eval_every == 0)):
                _evaluate(eval_fn, module, average, done, log, accelerator)
            if ending or (config.checkpoint_every and done % config.checkpoint_every == 0):
                state.store(folder / "checkpoints", done, run, keep=config.keep_checkpoints)

    average.apply()
    module.eval()
    if accelerator.is_main_process:
        export(module, folder)
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    resumed = None if last is None else start
    return FitResult(config.steps, resumed, log.line, folder, time.perf_counter() - began)


class _Batches:
    """The batch and the noise of each step, by step number."""

    def __init__(self, dataset: Dataset, config: TrainConfig, accelerator: Accelerator) -> None:
        self.dataset, self.seed, self.rows = dataset, config.seed, config.batch_size
        self.total = config.batch_size * accelerator.num_processes
        self.first = config.batch_size * accelerator.process_index
        self.device = accelerator.device
        self.epoch, self.order = -1, np.empty(0, dtype=np.int64)

    def at(self, step: int) -> tuple[dict[str, Tensor], noise.RowGenerator]:
        generator = noise.RowGenerator((self.seed, step), start=self.first, total=self.total)
        begin = step * self.total + self.first
        batch = _fetch(self.dataset, self._indices(begin, begin + self.rows))
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}, generator

    def _indices(self, begin: int, end: int) -> np.ndarray:
        """Entries begin to end of the endless row of epochs, each a permutation keyed by (seed, epoch)."""
        size, chunks = len(self.dataset), []
        while begin < end:
            epoch, at = divmod(begin, size)
            if epoch != self.epoch:
                self.epoch, self.order = epoch, np.random.default_rng((self.seed, epoch)).permutation(size)
            chunks.append(self.order[at : at + end - begin])
            begin += len(chunks[-1])
        return np.concatenate(chunks)


def _fetch(dataset: Dataset, indices: np.ndarray) -> Mapping[str, Tensor]:
    if hasattr(dataset, "__getitems__"):
        batch = dataset.__getitems__(indices.tolist())
        if isinstance(batch, Mapping):
            return batch
    else:
        batch = [dataset[int(index)] for index in indices]
    return torch.utils.data.default_collate(list(batch))


def _groups(parameters: Any, config: TrainConfig) -> list[dict[str, Any]]:
    parameters = list(parameters)
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _can_fuse(named: Mapping[str, Tensor]) -> bool | None:
    fits = all(
        parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for parameter in named.values()
    )
    return True if fits else None


def _evaluate(
    eval_fn: EvalFn, module: nn.Module, average: Average, step: int, log: TrainLog, accelerator: Accelerator
) -> None:
    if accelerator.is_main_process:
        module.eval()
        with average.applied(), torch.no_grad():
            figures = {f"eval/{name}": float(figure) for name, figure in eval_fn(module, step).items()}
        module.train()
        log.record(step, figures)
    accelerator.wait_for_everyone()

"""`train_reward`: comparisons to a calibrated reward model, on the common trainer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from diffdecide.files import write_atomic, write_json, write_text
from diffdecide.train import TrainConfig, fit
from reward_models.batches import Embed, PairBatches
from reward_models.calibration import brier, calibration_error, fit_temperature, log_loss
from reward_models.card import model_card
from reward_models.config import RewardConfig
from reward_models.model import RewardModel
from reward_models.preference_files import MappedPreferences
from reward_models.preferences import PreferenceError, Preferences
from reward_models.prompts import PromptEncoder


@dataclass(frozen=True)
class RewardTraining:
    """What came of a run.

    Attributes:
        model: with the weights of the best held-out likelihood, calibrated.
        best_step: the step they are from.
        steps: optimizer steps done.
        figures: accuracy, log loss, ECE and Brier on the held-out side, before and after temperature scaling.
        stopped_early: the held-out likelihood had not improved for `patience` evaluations.
        seconds: of this call.
    """

    model: RewardModel
    best_step: int
    steps: int
    figures: dict[str, float]
    stopped_early: bool
    seconds: float


class _Stop(Exception):
    """Ends a run from within its evaluation."""


class _Best:
    """The weights of the best evaluation so far, on disk, so that a killed run keeps them."""

    def __init__(self, folder: Path, held_out: PairBatches, patience: int, resume: bool, *, may_stop: bool) -> None:
        self.weights, self.record = folder / "best.safetensors", folder / "best.json"
        self.held_out, self.patience, self.may_stop = held_out, patience, may_stop
        self.loss, self.step, self.waited, self.stopped_at = float("inf"), 0, 0, 0
        if resume and self.record.is_file():
            known = json.loads(self.record.read_text(encoding="utf-8"))
            self.loss, self.step, self.waited = known["loss"], known["step"], known["waited"]
        elif not resume:
            self.record.unlink(missing_ok=True)

    def __call__(self, module: torch.nn.Module, step: int) -> Mapping[str, float]:
        assert isinstance(module, RewardModel)
        delta, label = deltas(module, self.held_out)
        loss = log_loss(delta, label, temperature=float(module.temperature))
        if loss < self.loss:
            self.loss, self.step, self.waited = loss, step, 0
            tensors = {name: tensor.detach().cpu().clone() for name, tensor in module.learned().items()}
            write_atomic(self.weights, lambda temporary: save_file(tensors, temporary))
        elif step > self.step:
            self.waited += 1
        write_json(self.record, {"loss": self.loss, "step": self.step, "waited": self.waited})
        if self.patience and self.waited >= self.patience and self.may_stop:
            self.stopped_at = step
            raise _Stop
        return {"log_loss": loss, "accuracy": accuracy(delta, label)}

    def restore(self, model: RewardModel) -> None:
        model.load_state_dict(load_file(self.weights), strict=False)


def train_reward(
    config: RewardConfig,
    train: Preferences | MappedPreferences,
    held_out: Preferences,
    *,
    output_dir: str | os.PathLike[str],
    settings: TrainConfig,
    patience: int = 0,
    resume: bool = False,
    embed: Embed | None = None,
    card: Mapping[str, Any] | None = None,
) -> RewardTraining:
    """Train a reward model and save it, calibrated, with its model card.

    Runs in one process or several (torchrun, accelerate launch). In several processes early stopping does not end the
    run, it only chooses the weights.

    Args:
        embed: texts of the column prompt to embeddings; by default those of `RewardConfig.prompt_encoder`.
        settings: of the trainer; `eval_every` says how often the held-out likelihood is looked at.
        patience: evaluations without improvement before the run ends; 0 never ends it.
        card: further lines of the model card.

    Raises:
        PreferenceError: held-out comparisons that are all ties, or of another width.
    """
    began = time.perf_counter()
    folder = Path(output_dir)
    if not (held_out.label != 0.5).any():
        raise PreferenceError("held-out side: expected at least one comparison that is no tie")
    model = RewardModel(config, seed=settings.seed)
    sample = train if isinstance(train, Preferences) else train.take(np.arange(min(len(train), 2000)))
    for name, data in (("training", sample), ("held-out", held_out)):
        if (data.observation_dim, data.action_dim) != (config.observation_dim, config.action_dim):
            raise PreferenceError(
                f"{name} side: expected observations and actions {config.observation_dim} and {config.action_dim} "
                f"wide, got {data.observation_dim} and {data.action_dim}"
            )
    both = (sample.first, sample.second)
    model.set_normaliser(
        np.concatenate([side.observations for side in both]), np.concatenate([side.actions for side in both])
    )
    needs = embed if config.prompt_dim else None
    if config.prompt_dim and needs is None:
        if config.prompt_encoder is None:
            raise ValueError("a prompt-conditioned reward needs `embed` or RewardConfig.prompt_encoder, got neither")
        needs = PromptEncoder(config.prompt_encoder)
    collapse = config.length if config.network == "linear" and not config.cost_head else None
    batches = PairBatches(
        train,
        members=config.members if config.bootstrap else 0,
        seed=settings.seed,
        embed=needs,
        costs=config.cost_head,
        inputs=model.inputs,
        collapse=collapse,
    )
    if config.network == "linear":
        # Of data that stay on disk, a sample says what the unit of each weight is.
        known = batches if batches.ready else PairBatches(sample, inputs=model.inputs)
        model.set_spread(known.summed_differences())
    checks = PairBatches(held_out, embed=needs, costs=config.cost_head, inputs=model.inputs, collapse=collapse)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    folder.mkdir(parents=True, exist_ok=True)
    best = _Best(folder, checks, patience, resume, may_stop=processes == 1)
    steps = settings.steps
    try:
        fit(model, batches, settings, output_dir=folder, resume=resume, eval_fn=best)
    except _Stop:
        steps = best.stopped_at
    model.eval()
    main = int(os.environ.get("RANK", "0")) == 0
    if main:
        best.restore(model)
    figures: dict[str, float] = {}
    if main:
        figures = calibrate(model, checks)
        sampled = PairBatches(sample, embed=needs).__getitems__(range(min(len(sample), 256)))
        model.set_scale(_spread(model, sampled))
        model.meta = {
            "data": sample.fingerprint() if isinstance(train, Preferences) else f"first 2000: {sample.fingerprint()}",
            "comparisons": len(train),
            "held_out": len(held_out),
            "best_step": best.step,
            "figures": figures,
            "settings": asdict(settings),
        }
        model.save_pretrained(folder)
        seconds = time.perf_counter() - began
        write_text(folder / "README.md", model_card(model, figures, seconds=seconds, extra=card or {}))
    return RewardTraining(model, best.step, steps, figures, steps < settings.steps, time.perf_counter() - began)


@torch.no_grad()
def deltas(model: RewardModel, batches: PairBatches, *, chunk: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Differences of mean scores [N] and labels [N] of a data set."""
    device = next(model.parameters()).device
    parts, labels = [], []
    for start in range(0, len(batches), chunk):
        batch = batches.__getitems__(range(start, min(start + chunk, len(batches))))
        delta, _ = model.delta({name: tensor.to(device) for name, tensor in batch.items()})
        parts.append(delta.mean(0).float().cpu().numpy())
        labels.append(batch["label"].numpy())
    return np.concatenate(parts), np.concatenate(labels)


def accuracy(delta: np.ndarray, label: np.ndarray) -> float:
    """Share of the decided comparisons that are predicted; nan if none is decided."""
    decided = label != 0.5
    return float(((delta > 0) == (label > 0.5))[decided].mean()) if decided.any() else float("nan")


def calibrate(model: RewardModel, held_out: PairBatches) -> dict[str, float]:
    """Set the model's temperature on held-out comparisons, and give the figures before and after."""
    delta, label = deltas(model, held_out)
    temperature = fit_temperature(delta, label)
    figures = {"accuracy": accuracy(delta, label), "temperature": temperature}
    for name, t in (("raw", 1.0), ("scaled", temperature)):
        probability = 1 / (1 + np.exp(-np.clip(delta / t, -60, 60)))
        figures[f"log_loss_{name}"] = log_loss(delta, label, temperature=t)
        figures[f"ece_{name}"] = calibration_error(probability, label)
        figures[f"brier_{name}"] = brier(probability, label)
    model.temperature.fill_(temperature)
    return figures


@torch.no_grad()
def _spread(model: RewardModel, batch: Mapping[str, torch.Tensor]) -> float:
    """Standard deviation of the step rewards of a sample."""
    rewards, _ = model.steps(batch["obs_1"], batch["act_1"], batch["mask_1"], batch.get("prompt"))
    return max(float(rewards.mean(0)[batch["mask_1"]].std()), 1e-6)

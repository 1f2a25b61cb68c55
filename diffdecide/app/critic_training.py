"""Data files to trained and calibrated cost critics: `diffdecide train critic`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffdecide.data.readers import read
from diffdecide.files import write_json
from diffdecide.records import provenance
from diffdecide.train import FitResult, TrainConfig, fit
from safety.calibration import Calibration, boundary_margin, calibrate, per_episode, risk_threshold
from safety.critics.base import Critic, CriticConfig
from safety.critics.quantile import QuantileCostCritic
from safety.critics.storage import critic_class
from safety.critics.transitions import Transitions

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
BOUNDARY_MISS = 0.05  # share of steps at the boundary of which a feasibility critic may think too well


@dataclass(frozen=True)
class CriticData:
    """Transitions to train on and episodes kept out for calibration."""

    train: Transitions
    held_out: Transitions


def critic_data(files: Sequence[str | Path], *, held_out: float = 0.2, seed: int = 0) -> CriticData:
    """Read data files and keep a share of the episodes out of training.

    Raises:
        ValueError: no files, fewer than two episodes, or files that do not fit together.
    """
    if not files:
        raise ValueError("expected at least one data file, got none")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must lie in (0, 1), got {held_out}")
    names = ("observations", "next_observations", "actions", "costs", "terminals", "constraints")
    episodes = [{name: getattr(episode, name) for name in names} for file in files for episode in read(file)]
    if len(episodes) < 2:
        raise ValueError(f"training and calibration need at least two episodes, got {len(episodes)}")
    everything = Transitions.of_episodes(episodes)
    order = np.random.default_rng(seed).permutation(len(episodes))
    count = min(len(episodes) - 1, max(1, round(held_out * len(episodes))))
    return CriticData(everything.of(order[count:].tolist()), everything.of(order[:count].tolist()))


def train_critic(
    data: CriticData, kind: str, config: CriticConfig, train: TrainConfig, out: Path, *, resume: bool = False
) -> tuple[Critic, FitResult, dict[str, Any]]:
    """Train, calibrate on the held-out episodes, and write the critic, `calibration.json` and `calibration.png`."""
    critic = critic_class(kind)(config, seed=train.seed)
    critic.set_normaliser(data.train.observation, data.train.action, data.train.cost)
    result = fit(critic, data.train, train, output_dir=out / "training", resume=resume)
    critic.eval()
    critic.save_pretrained(out)
    report = calibration_report(critic, data.held_out)
    write_json(out / "calibration.json", report | {"provenance": provenance()})
    if "cost" in report:
        from diffdecide.app.plots import plot_calibration

        plot_calibration(report["cost"], out / "calibration.png")
    return critic, result, report


@torch.no_grad()
def calibration_report(critic: Critic, held_out: Transitions, *, miss: float = 0.1) -> dict[str, Any]:
    """Predicted against realised on held-out episodes.

    Cost critics: cost-to-go ("cost"). Feasibility: how often the sign is right, and by how much a filter must stay
    below the boundary for a share of `BOUNDARY_MISS` of the steps there to be mistaken ("feasibility"). All: the
    threshold of a learned filter that lets at most `miss` of the episodes pass into cost ("threshold"), from each
    episode's riskiest step. None where the episodes are too few to promise it, and for the margin where there is no
    continuous constraint.
    """
    parts = zip(held_out.observation.split(4096), held_out.action.split(4096), strict=True)
    risk = torch.cat([critic.risk(observation, action) for observation, action in parts])
    episodes = held_out.episode.numpy()
    harmed = per_episode(held_out.cost.double().numpy(), episodes) > 0
    threshold = risk_threshold(per_episode(risk.double().numpy(), episodes), harmed, miss)
    report: dict[str, Any] = {
        "kind": critic.kind,
        "steps": len(held_out),
        "episodes": len(harmed),
        "harmed_episodes": int(harmed.sum()),
        "threshold": {"miss": miss, "value": threshold if np.isfinite(threshold) else None},
    }
    if critic.kind == "feasibility":
        ahead = _lowest_ahead(held_out.constraint.double().numpy(), episodes)
        predicted = (risk > 0).numpy()
        report["feasibility"] = {
            "continuous": held_out.continuous,
            "called_safe": float(np.mean(~predicted)),
            "called_safe_and_violated": float(np.mean(ahead[~predicted] < 0)) if (~predicted).any() else None,
            "called_unsafe_and_kept": float(np.mean(ahead[predicted] >= 0)) if predicted.any() else None,
            "margin": _boundary_margin(risk, held_out),
        }
        return report
    report["cost"] = cost_calibration(critic, held_out, miss=miss).to_dict()
    return report


def _boundary_margin(risk: torch.Tensor, held_out: Transitions) -> float | None:
    if not held_out.continuous:
        return None
    margin = boundary_margin(risk.double().numpy(), -held_out.constraint.double().numpy(), BOUNDARY_MISS)
    return margin if np.isfinite(margin) else None


def cost_calibration(critic: Critic, held_out: Transitions, *, miss: float = 0.1) -> Calibration:
    """Calibration of a cost critic against the realised discounted cost, where the episode still shows nine tenths of
    the discounted weight ahead: behind a time-out the realised cost is not known."""
    gamma = critic.config.gamma
    realised, enough = _realised(held_out, gamma)
    if not enough.any():
        raise ValueError(f"the held-out episodes are too short for gamma = {gamma}: no step shows its cost-to-go")
    rows = torch.from_numpy(np.flatnonzero(enough))
    observation, action = held_out.observation[rows], held_out.action[rows]
    quantiles: np.ndarray | None = None
    levels: tuple[float, ...] = ()
    if isinstance(critic, QuantileCostCritic):
        values = critic.quantiles(observation, action)
        index = [int(np.argmin(np.abs(critic.levels.numpy() - level))) for level in LEVELS]
        quantiles, levels = values[:, index].double().numpy(), tuple(float(critic.levels[i]) for i in index)
        predicted = critic.cvar(observation, action, share=1.0)
    else:
        predicted = critic.risk(observation, action)
    return calibrate(
        predicted.double().numpy(),
        realised[enough],
        held_out.episode.numpy()[enough],
        miss=miss,
        quantiles=quantiles,
        levels=levels,
    )


def _realised(data: Transitions, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Discounted cost-to-go [N] within the episode, and where that is nearly all there is [N]."""
    cost, episode, terminal = (x.double().numpy() for x in (data.cost, data.episode, data.terminal))
    total, weight = np.zeros(len(cost)), np.zeros(len(cost))
    for step in range(len(cost) - 1, -1, -1):
        last = step + 1 == len(cost) or episode[step + 1] != episode[step]
        ahead, unseen = (0.0, 0.0 if terminal[step] else 1.0) if last else (total[step + 1], weight[step + 1])
        total[step], weight[step] = cost[step] + gamma * ahead, gamma * unseen
    return total, weight <= 0.1


def _lowest_ahead(values: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    lowest = values.copy()
    for step in range(len(values) - 2, -1, -1):
        if episodes[step] == episodes[step + 1]:
            lowest[step] = min(lowest[step], lowest[step + 1])
    return lowest

"""`bench steering`: what a planner gains by learned rewards, relative rewards and alignment, in rollouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffdecide.app.alignment import Taste
from diffdecide.app.bench.steered import Rows, Variant, column, improvement, play, summary
from diffdecide.app.bench.steering_config import SteeringConfig
from diffdecide.app.bench.steering_models import BARE, HELD_OUT_SEEDS, SteeringModels
from diffdecide.app.rewards import RewardChoice
from diffdecide.files import read_json, write_json
from diffdecide.intervals import bootstrap_mean, paired_difference
from diffdecide.planner import Planner
from diffdecide.records import provenance
from reward_models.relative import RelativeReward, advantage, auc

PARTS = ("unhurried", "goal", "curve", "relative", "dpo")


class SteeringBench:
    """Runs the parts; rollouts are kept episode by episode in one JSON file, models in `work`.

    Args:
        data: episodes that the rewards are learned from.
        work: folder of trained models and collected data; what is finished there is taken as it is.
    """

    def __init__(self, config: SteeringConfig, data: Path, out: Path, work: Path) -> None:
        self.config, self.data, self.out, self.work = config, data, out, work
        self.models = SteeringModels(config, data, work)
        self.results: dict[str, Any] = {}
        self.rollouts: dict[str, Any] = {}
        if out.is_file():
            earlier = read_json(out)
            if earlier.get("env") != config.env:
                raise ValueError(f"{out} holds results of {earlier.get('env')}, not of {config.env}")
            self.results, self.rollouts = dict(earlier.get("parts", {})), dict(earlier.get("rollouts", {}))

    def run(self, part: str) -> None:
        """Measure one part; episodes that were played with the same settings are kept."""
        self.results[part] = getattr(self, f"_{part}")() | {"config": asdict(self.config)}
        self.save()
        print(f"{part}: {json.dumps(_figures(self.results[part]), default=str)}")

    def save(self) -> None:
        record = {
            "env": self.config.env,
            "data": self.data.name,
            **provenance(),
            "parts": self.results,
            "rollouts": self.rollouts,
        }
        write_json(self.out, record)

    @property
    def seeds(self) -> range:
        return range(self.config.seed, self.config.seed + self.config.episodes)

    def play(self, name: str, variant: Variant, seeds: range | None = None) -> Rows:
        """Rollouts of a variant under a name; those of another variant under that name are dropped."""
        described = json.loads(json.dumps(variant.to_dict() | {"max_steps": self.config.max_steps}, default=str))
        described["planner"] = self._told(described["planner"])
        if described["reward"]:
            described["reward"]["folder"] = self._told(described["reward"]["folder"])
        known = self.rollouts.get(name)
        if known is None or known["variant"] != described:
            known = self.rollouts[name] = {"variant": described, "rows": []}
        return play(
            variant,
            self.config.env,
            self.seeds if seeds is None else seeds,
            max_steps=self.config.max_steps,
            rows=known["rows"],
            save=self.save,
        )

    def _told(self, folder: str) -> str:
        """A folder without the paths of this machine."""
        return folder.replace(self.models.planner, "planner").replace(str(self.work), "work")

    def _steered(self, taste: Taste, name: str, base: Variant) -> dict[str, Any]:
        weight = self.config.weight
        learned = RewardChoice(folder=self.models.reward(taste), weight=weight)
        rows = {
            "none": self.play(f"{taste}: none", base),
            "true": self.play(f"{taste}: true", replace(base, true=taste, weight=weight)),
            "learned": self.play(f"{taste}: learned", replace(base, reward=learned)),
        }
        return {
            "weight": weight,
            "improvement": improvement(rows["none"], rows["true"], rows["learned"], name),
            "rows": {key: summary(value) for key, value in rows.items()},
        }

    def _unhurried(self) -> dict[str, Any]:
        return self._steered("unhurried", "unhurried", Variant(planner=self.models.planner))

    def _goal(self) -> dict[str, Any]:
        """The network is told no goal and the ranking knows no way: where to go is the reward's matter alone."""
        lost = Variant(planner=self.models.planner, settings={"task_weight": 0.0}, zero_embedding=True)
        return self._steered("goal-seeking", "return", lost)

    def _curve(self) -> dict[str, Any]:
        """True return and true score against the strength of a learned reward, by ranking and by gradient."""
        from diffdecide.app.bench.steering_plot import plot_curve

        config = self.config
        seeds = range(config.seed, config.seed + config.curve_episodes)
        folder = self.models.reward("unhurried")
        points = []
        for kind in ("weight", "guidance"):
            for strength in (0.0, *config.weights):
                variant = Variant(planner=self.models.planner)
                if strength:
                    other = {"weight": strength} if kind == "weight" else {"weight": 0.0, "guidance": strength}
                    variant = replace(variant, reward=RewardChoice(folder=folder, **other))
                name = f"curve: {kind} {strength:g}" if strength else "curve: none"
                points.append({"kind": kind, "strength": strength, **summary(self.play(name, variant, seeds))})
        path = plot_curve(points, self.out.with_suffix(".curve.png"))
        return {"points": points, "file": path.name}

    def _relative(self) -> dict[str, Any]:
        """The reckless planner, bare, and what the relative reward makes of it."""
        config, folder, styles = self.config, self.models.relative(), self.models.styles()
        figures = self._separation(folder, styles)
        settings = {**BARE, "candidates": config.relative_candidates}
        bare = Variant(planner=str(styles["reckless"]), settings=settings, filtered=False)
        choice = RewardChoice(folder=str(folder), weight=config.relative_weight, guidance=config.relative_guidance)
        rows = {
            "reckless": self.play("relative: reckless", bare),
            "steered": self.play("relative: steered", replace(bare, reward=choice)),
            "cautious": self.play("relative: cautious", replace(bare, planner=str(styles["cautious"]))),
        }
        cost, back = (
            {key: float(column(value, name).mean()) for key, value in rows.items()} for name in ("cost", "return")
        )
        return {
            **figures,
            "cost_removed": 1 - cost["steered"] / cost["reckless"] if cost["reckless"] else None,
            "return_kept": back["steered"] / back["reckless"],
            "rows": {key: summary(value) for key, value in rows.items()},
        }

    def _separation(self, folder: Path, styles: Mapping[str, Path], count: int = 300) -> dict[str, Any]:
        """AUC on windows of held-out episodes, raw and with one zero for all situations."""
        reward = RelativeReward.from_pretrained(folder)
        planners = [Planner.from_pretrained(path).model for path in styles.values()]
        held = self.models.windows(first=HELD_OUT_SEEDS, episodes=max(2, self.config.collected // 6))
        scores: dict[str, dict[str, np.ndarray]] = {"raw": {}, "centred": {}}
        for name, data in held.items():
            rows = np.linspace(0, len(data.windows) - 1, min(count, len(data.windows))).astype(int)
            batch = data.windows.__getitems__(rows)
            situation = {key: batch[key] for key in ("ego", "tokens", "token_mask", "goal")}
            with torch.no_grad():
                scores["raw"][name] = reward.reward(batch["trajectory"], situation).numpy()
            scores["centred"][name] = advantage(
                reward,
                batch["trajectory"],
                situation,
                planners,
                generator=torch.Generator().manual_seed(0),
            ).numpy()
        return {"auc": {kind: auc(side["cautious"], side["reckless"]) for kind, side in scores.items()}}

    def _dpo(self) -> dict[str, Any]:
        """A planner aligned with the unhurried teacher against itself before, on the same seeds."""
        rows = {
            "reference": self.play("dpo: reference", Variant(planner=self.models.planner)),
            "aligned": self.play("dpo: aligned", Variant(planner=str(self.models.aligned()))),
        }
        better = column(rows["aligned"], "unhurried") > column(rows["reference"], "unhurried")
        return {
            "preferred": bootstrap_mean(better.astype(float)).to_dict(),
            "return_kept": float(column(rows["aligned"], "return").mean() / column(rows["reference"], "return").mean()),
            "gain": paired_difference(
                column(rows["aligned"], "unhurried"), column(rows["reference"], "unhurried")
            ).to_dict(),
            "rows": {key: summary(value) for key, value in rows.items()},
        }


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("config", "rows", "points")}

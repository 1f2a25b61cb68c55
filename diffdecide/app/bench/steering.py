"""`bench steering`: what a planner gains by learned rewards, relative rewards and alignment, in rollouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffdecide.app.agent_policy import find_planner
from diffdecide.app.alignment import (
    AlignConfig,
    Taste,
    align_planner,
    data_for,
    fine_tune,
    fit_relative,
    taste_score,
)
from diffdecide.app.bench.steered import Rows, Variant, column, improvement, play, summary
from diffdecide.app.rewards import RewardChoice
from diffdecide.app.training import PlannerData
from diffdecide.data.collect import CollectConfig, collect
from diffdecide.data.mixed import MixedWindows
from diffdecide.data.readers import read_hdf5
from diffdecide.files import read_json, write_json
from diffdecide.intervals import bootstrap_mean, paired_difference
from diffdecide.planner import Planner
from diffdecide.records import provenance
from diffdecide.train import TrainConfig
from reward_models.config import RewardConfig
from reward_models.dpo import DPOConfig
from reward_models.pairs import label_episodes
from reward_models.relative import RelativeReward, advantage, auc
from reward_models.teachers import Teacher, goal_seeking, unhurried
from reward_models.train import train_reward
from safety import envs

PARTS = ("unhurried", "goal", "curve", "relative", "dpo")
# The plan as it comes from the diffusion model: nothing else is ranked, projected or filtered.
BARE: Mapping[str, Any] = {"task_weight": 0.0, "clearance_weight": 0.0, "project": False}


@dataclass(frozen=True, kw_only=True)
class SteeringConfig:
    """See the options of `diffdecide bench steering`."""

    env: str = "SafetyPointGoal1-v0"
    planner: str = "default"
    episodes: int = 20
    seed: int = 10_000
    max_steps: int | None = None
    pairs: int = 3000
    reward_steps: int = 700
    weight: float = 0.3
    weights: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    curve_episodes: int = 8
    collected: int = 26
    tune_steps: int = 1200
    relative_steps: int = 2000
    relative_guidance: float = 0.3
    relative_candidates: int = 16
    dpo_pairs: int = 3000
    dpo_steps: int = 400
    dpo_beta: float = 20.0
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


class SteeringBench:
    """Runs the parts; rollouts are kept episode by episode in one JSON file, models in `work`.

    Args:
        data: episodes that the rewards and the aligned planner learn from.
        work: folder of trained models and collected data; what is finished there is taken as it is.
    """

    def __init__(self, config: SteeringConfig, data: Path, out: Path, work: Path) -> None:
        self.config, self.data, self.out, self.work = config, data, out, work
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

    @cached_property
    def planner(self) -> str:
        return str(find_planner(self.config.planner, self.config.env))

    def play(self, name: str, variant: Variant, seeds: range | None = None) -> Rows:
        """Rollouts of a variant under a name; those of another variant under that name are dropped."""
        described = json.loads(json.dumps(variant.to_dict() | {"max_steps": self.config.max_steps}, default=str))
        for key, home in (("planner", self.planner), ("planner", str(self.work))):
            described[key] = described[key].replace(home, "default" if home == self.planner else "work")
        if described["reward"]:
            described["reward"]["folder"] = described["reward"]["folder"].replace(str(self.work), "work")
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

    def reward(self, taste: Taste) -> str:
        """Folder of the reward learned for a taste."""
        config, folder = self.config, self.work / f"reward-{taste}"
        if not (folder / "README.md").is_file():
            episodes = read_hdf5(self.data)
            cut = max(1, int(0.85 * len(episodes)))
            score, network = (goal_seeking, "linear") if taste == "goal-seeking" else (unhurried, "mlp")
            sides = []
            teacher = Teacher()
            for number, (side, count) in enumerate(
                ((episodes[:cut], config.pairs), (episodes[cut:], max(40, config.pairs // 5)))
            ):
                found = label_episodes(
                    side,
                    pairs=count,
                    score=score,
                    teacher=teacher,
                    rng=np.random.default_rng((21, number)),
                    length=20,
                    bayes_accuracy=None if number else 0.9,
                )
                teacher = Teacher(beta=found.beta)
                sides.append(found.data)
            linear = network == "linear"
            train_reward(
                RewardConfig.for_spec(
                    envs.spec(config.env), network=network, members=1, hidden=64, sparsity=0.005 if linear else 0.0
                ),
                *sides,
                output_dir=folder,
                settings=replace(
                    config.train(config.reward_steps, 2e-2 if linear else 2e-3),
                    weight_decay=0.0 if linear else 0.3,
                    eval_every=max(1, config.reward_steps // 7),
                    checkpoint_every=0,
                    overwrite=True,
                ),
            )
        return str(folder)

    def _steered(self, taste: Taste, name: str, base: Variant) -> dict[str, Any]:
        weight = self.config.weight
        learned = RewardChoice(folder=self.reward(taste), weight=weight)
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
        return self._steered("unhurried", "unhurried", Variant(planner=self.planner))

    def _goal(self) -> dict[str, Any]:
        """The network is told no goal and the ranking knows no way: where to go is the reward's matter alone."""
        lost = Variant(planner=self.planner, settings={"task_weight": 0.0}, zero_embedding=True)
        return self._steered("goal-seeking", "return", lost)

    def _curve(self) -> dict[str, Any]:
        """True return and true score against the strength of a learned reward, by ranking and by gradient."""
        from diffdecide.app.bench.steering_plot import plot_curve

        config = self.config
        seeds = range(config.seed, config.seed + config.curve_episodes)
        folder = self.reward("unhurried")
        points = []
        for kind in ("weight", "guidance"):
            for strength in (0.0, *config.weights):
                variant = Variant(planner=self.planner)
                if strength:
                    other = {"weight": strength} if kind == "weight" else {"weight": 0.0, "guidance": strength}
                    variant = replace(variant, reward=RewardChoice(folder=folder, **other))
                name = f"curve: {kind} {strength:g}" if strength else "curve: none"
                points.append({"kind": kind, "strength": strength, **summary(self.play(name, variant, seeds))})
        path = plot_curve(points, self.out.with_suffix(".curve.png"))
        return {"points": points, "file": path.name}

    def collected(self, name: str, *, first: int, episodes: int) -> Path:
        """Episodes of a cautious or a reckless behaviour policy."""
        path = self.work / f"{name}-{first}.hdf5"
        if not path.is_file():
            knobs: dict[str, Any] = {"behaviour": "proportional", "noise": (0.0, 0.1)}
            if name == "cautious":
                knobs = {"behaviour": "mpc", "margin": (0.1, 0.1), "noise": (0.0, 0.2), "candidates": 150}
            collect(
                CollectConfig(env=self.config.env, out=path, episodes=episodes, seed=first, skill=(0.75, 1.0), **knobs),
                progress=False,
            )
        return path

    def windows(self, *, first: int, episodes: int) -> dict[str, PlannerData]:
        """Windows of cautious and reckless episodes whose seeds start at `first`."""
        planner = Planner.from_pretrained(self.planner)
        return {
            name: data_for(
                planner,
                [self.collected(name, first=first, episodes=episodes)],
                labels="only",
                start_every=4,
                progress=False,
            )
            for name in ("cautious", "reckless")
        }

    def _relative(self) -> dict[str, Any]:
        """The reckless planner, bare, and what the relative reward makes of it."""
        config = self.config
        seeds = {"first": 3000, "episodes": config.collected}
        folders = {name: self.work / f"planner-{name}" for name in ("cautious", "reckless")}
        data: dict[str, PlannerData] = {}
        missing = [name for name in folders if not (folders[name] / "planner.json").is_file()]
        if missing or not (self.work / "relative" / "relative.json").is_file():
            data = self.windows(**seeds)
        for name in missing:
            planner = Planner.from_pretrained(self.planner)
            fine_tune(planner, data[name], out=folders[name], train=config.train(config.tune_steps, 3e-4), resume=True)
        planners = {name: Planner.from_pretrained(folder) for name, folder in folders.items()}
        folder = self.work / "relative"
        if not (folder / "relative.json").is_file():
            both = replace(
                data["cautious"],
                windows=MixedWindows([*data["cautious"].windows.parts, *data["reckless"].windows.parts]),
            )
            fit_relative(
                planners["reckless"],
                planners["cautious"],
                both,
                out=folder,
                train=config.train(config.relative_steps, 1e-3),
                resume=True,
            )
        reward = RelativeReward.from_pretrained(folder)
        figures = self._separation(reward, planners)
        settings = {**BARE, "candidates": config.relative_candidates}
        bare = Variant(planner=str(folders["reckless"]), settings=settings, filtered=False)
        choice = RewardChoice(folder=str(folder), weight=0.1, guidance=config.relative_guidance)
        rows = {
            "reckless": self.play("relative: reckless", bare),
            "steered": self.play("relative: steered", replace(bare, reward=choice)),
            "cautious": self.play("relative: cautious", replace(bare, planner=str(folders["cautious"]))),
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

    def _separation(self, reward: RelativeReward, planners: Mapping[str, Planner], count: int = 300) -> dict[str, Any]:
        """AUC on windows of held-out episodes, raw and with one zero for all situations."""
        held = self.windows(first=4000, episodes=max(2, self.config.collected // 6))
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
                [planner.model for planner in planners.values()],
                generator=torch.Generator().manual_seed(0),
            ).numpy()
        return {"auc": {kind: auc(side["cautious"], side["reckless"]) for kind, side in scores.items()}}

    def _dpo(self) -> dict[str, Any]:
        """A planner aligned with the unhurried teacher against itself before, on the same seeds."""
        config, folder = self.config, self.work / "aligned"
        if not (folder / "planner.json").is_file():
            planner = Planner.from_pretrained(self.planner)
            data = data_for(planner, [self.data], labels="only", start_every=4, progress=False)
            align_planner(
                planner,
                data,
                taste_score("unhurried", envs.spec(config.env)),
                out=folder,
                train=config.train(config.dpo_steps, 1e-4),
                align=AlignConfig(pairs=config.dpo_pairs),
                dpo=DPOConfig(beta=config.dpo_beta),
                resume=True,
            )
        rows = {
            "reference": self.play("dpo: reference", Variant(planner=self.planner)),
            "aligned": self.play("dpo: aligned", Variant(planner=str(folder))),
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

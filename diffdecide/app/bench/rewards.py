"""Learned rewards against their teacher's Bayes rate, the true return, and simpler rewards on the same comparisons."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diffdecide.data.episode import Episode, fingerprint
from diffdecide.data.readers import read_hdf5
from diffdecide.files import read_json, write_json
from diffdecide.records import provenance
from diffdecide.train import TrainConfig
from reward_models import judging
from reward_models.config import RewardConfig
from reward_models.model import RewardModel
from reward_models.pairs import LabelledPairs, label_episodes
from reward_models.teachers import Teacher, goal_seeking
from reward_models.train import train_reward
from safety import envs

# Of the linear reward, at 5,000 comparisons; the calibration side chooses. What noise alone does to a weight falls with
# the square root of their number, and so must the penalty (Bickel et al. 2009).
SPARSITIES = (0.003, 0.007, 0.015)


@dataclass(frozen=True, kw_only=True)
class RewardBenchConfig:
    """See the options of `diffdecide bench rewards`."""

    pairs: int = 5000
    test_pairs: int = 20_000
    segment: int = 20
    bayes_accuracy: float = 0.87
    network: str = "linear"
    members: int = 3
    steps: int = 800
    curve: tuple[int, ...] = (50, 200, 1000, 5000)
    flips: tuple[float, ...] = (0.0, 0.1, 0.3)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pairs", "test_pairs", "segment", "members", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.curve or min(self.curve) < 2 or max(self.curve) > self.pairs:
            raise ValueError(f"curve must hold numbers from 2 to {self.pairs}, got {self.curve}")
        if any(not 0 <= share < 0.5 for share in self.flips):
            raise ValueError(f"flips must lie in [0, 0.5), got {self.flips}")

    def train(self, seed: int, *, steps: int | None = None, network: str = "mlp") -> TrainConfig:
        steps = self.steps if steps is None else steps
        return TrainConfig(
            steps=steps,
            batch_size=128,
            # A sum of weighted inputs is convex in its weights and takes large steps.
            learning_rate=2e-2 if network == "linear" else 2e-3,
            weight_decay=0.0 if network == "linear" else 0.3,
            ema_decay=0.98,
            warmup_steps=min(50, steps),
            eval_every=max(1, min(100, steps // 4)),
            checkpoint_every=0,
            seed=seed,
            device="cpu",
            tracker=None,
            progress=False,
        )


class RewardBench:
    """Runs the parts and keeps what is done in one JSON file.

    Episodes are split 8 : 1 : 1 into training, calibration and test, so that no two sides share a trajectory; with a
    file of episodes for testing, 9 : 1 into training and calibration.
    """

    def __init__(
        self, config: RewardBenchConfig, data: Path, out: Path, *, test: Path | None = None, again: bool = False
    ) -> None:
        self.config, self.data, self.out, self.test, self.again = config, data, out, test, again
        self.results: dict[str, Any] = {}
        self.made: dict[str, Any] = {}
        if out.is_file():
            earlier = read_json(out)
            if earlier.get("config") == json.loads(json.dumps(asdict(config))):
                self.results = dict(earlier.get("parts", {}))
                self.made = dict(earlier.get("made", {}))
            elif not again:
                raise ValueError(f"{out} was measured with other settings: name another file, or pass --again")

    @cached_property
    def episodes(self) -> list[Episode]:
        return _read(self.data)

    @cached_property
    def fresh(self) -> list[Episode] | None:
        """Episodes of the test file; ValueError where one of them is among those to train on."""
        if self.test is None:
            return None
        fresh = _read(self.test)
        if fresh[0].metadata["env_id"] != self.env_id:
            other = fresh[0].metadata["env_id"]
            raise ValueError(f"{self.test}: episodes of {other}, those of {self.data} are of {self.env_id}")
        seeds = {episode.seed for episode in self.episodes}
        both = sorted({e.seed for e in fresh if e.seed is not None and e.seed in seeds})
        if both:
            raise ValueError(f"{self.test}: seeds {both[:5]} are in {self.data} as well: test on other episodes")
        return fresh

    @property
    def env_id(self) -> str:
        return str(self.episodes[0].metadata["env_id"])

    @cached_property
    def sides(self) -> tuple[list[Episode], list[Episode], list[Episode]]:
        count = len(self.episodes)
        if self.fresh is not None:
            one = int(0.9 * count)
            return self.episodes[:one], self.episodes[one:], self.fresh
        one, two = int(0.8 * count), int(0.9 * count)
        return self.episodes[:one], self.episodes[one:two], self.episodes[two:]

    @cached_property
    def pairs(self) -> tuple[LabelledPairs, LabelledPairs, LabelledPairs]:
        """Training, calibration (a fifth of the training pairs, at most 1000) and test comparisons of one teacher."""
        config, made, teacher = self.config, [], Teacher()
        wanted = (config.pairs, max(20, min(1000, config.pairs // 5)), config.test_pairs)
        for number, (side, pairs) in enumerate(zip(self.sides, wanted, strict=True)):
            found = label_episodes(
                side,
                pairs=pairs,
                score=goal_seeking,
                teacher=teacher,
                rng=np.random.default_rng((config.seed, number)),
                length=config.segment,
                bayes_accuracy=config.bayes_accuracy if number == 0 else None,
            )
            teacher = Teacher(beta=found.beta)
            made.append(found)
        return made[0], made[1], made[2]

    def fit(
        self,
        train: Any = None,
        *,
        held_out: Any = None,
        seed: int | None = None,
        steps: int | None = None,
        **options: Any,
    ) -> RewardModel:
        """A model trained on comparisons of this bench."""
        config = self.config
        settings: dict[str, Any] = {
            "network": config.network,
            "members": config.members,
            "hidden": 64,
            "bootstrap": False,
        }
        settings |= options
        train = self.pairs[0].data if train is None else train
        given = "sparsity" in settings or settings["network"] != "linear"
        chosen: tuple[float, RewardModel] | None = None
        scale = (5000 / len(train)) ** 0.5
        for sparsity in (settings.get("sparsity", 0.0),) if given else [scale * value for value in SPARSITIES]:
            with tempfile.TemporaryDirectory() as folder:
                result = train_reward(
                    RewardConfig.for_spec(envs.spec(self.env_id), **(settings | {"sparsity": sparsity})),
                    train,
                    self.pairs[1].data if held_out is None else held_out,
                    output_dir=folder,
                    settings=config.train(
                        config.seed if seed is None else seed, steps=steps, network=settings["network"]
                    ),
                )
            loss = result.figures["log_loss_scaled"]
            if chosen is None or loss < chosen[0]:
                chosen = (loss, result.model)
        assert chosen is not None
        return chosen[1]

    def run(self, part: str) -> None:
        """Measure one part, unless it is there already, and save the file."""
        if part in self.results and not self.again:
            print(f"{part}: kept")
            return
        self.results[part] = getattr(self, f"_{part}")()
        print(f"{part}: {json.dumps(self.results[part], default=str)[:600]}")
        made = provenance()
        self.made[part] = {name: made[name] for name in ("commit", "dirty", "command", "date")}
        record = {
            "config": asdict(self.config),
            "env": self.env_id,
            "data": _facts(self.data, self.episodes),
            "test": None if self.test is None or self.fresh is None else _facts(self.test, self.fresh),
            **made,
            "made": self.made,
            "parts": self.results,
        }
        write_json(self.out, record)

    @cached_property
    def model(self) -> RewardModel:
        return self.fit()

    def judge(self, model: RewardModel) -> dict[str, Any]:
        """Accuracy and calibration on the test pairs, agreement with the true return on their segments."""
        test = self.pairs[2]
        figures = judging.judge_accuracy(model, test)
        scores = judging.segment_scores(model, test.data.first)
        return {**figures, "segments": asdict(judging.correlation(scores, test.score_1))}

    def _headline(self) -> dict[str, Any]:
        model, test = self.model, self.pairs[2]
        figures = self.judge(model)
        side = self.sides[2]
        truth = np.array([episode.total_return for episode in side])
        figures["episodes"] = asdict(judging.correlation(judging.episode_scores(model, side), truth))
        scores = judging.segment_scores(model, test.data.first)
        figures["best_of"] = judging.best_of(scores, test.score_1, [n for n in (1, 4, 16, 64, 256) if n <= len(scores)])
        figures["epic"] = self._epic(model)
        figures["beta"] = test.beta
        return figures

    def _epic(self, model: RewardModel) -> dict[str, float]:
        from diffdecide.app.bench.reward_epic import epic_distances

        seed = self.config.seed
        flipped = self.pairs[0].data.flipped(0.1, np.random.default_rng((seed, 11)))
        other = self.fit(flipped, seed=seed + 1, steps=max(1, self.config.steps // 2), members=1)
        return epic_distances(model, other, self.sides[2], envs.spec(self.env_id), seed=seed)

    def _baselines(self) -> dict[str, Any]:
        from reward_models.preferences import Preferences

        train = self.pairs[0].data
        decided: Preferences = train.take(np.flatnonzero(train.label != 0.5))
        return {
            "linear on raw observations": self.judge(
                self.fit(network="linear", members=1, rings=(), velocity=None, ignored=())
            ),
            "mlp": self.judge(self.fit(network="mlp", members=1)),
            "single network": self.judge(self.model if self.config.members == 1 else self.fit(members=1)),
            "ensemble of 5, bootstrapped": self.judge(self.fit(members=5, bootstrap=True)),
            "mlp on raw observations": self.judge(
                self.fit(network="mlp", members=1, rings=(), velocity=None, ignored=())
            ),
            # What TRL's RewardTrainer does: a scalar for the whole sequence, no ties, the logistic loss.
            "scalar loss, mean over steps, no ties": self.judge(self.fit(decided, members=1, length="mean")),
        }

    def _data(self) -> list[dict[str, Any]]:
        train, held_out = self.pairs[0].data, self.pairs[1].data
        curve = []
        for count in self.config.curve:
            # The calibration side grows with the data: nobody labels a thousand pairs to check fifty.
            checks = held_out.take(np.arange(min(len(held_out), max(20, count // 5))))
            whole = count == len(train) and len(checks) == len(held_out)
            model = self.model if whole else self.fit(train.take(np.arange(count)), held_out=checks)
            curve.append({**self.judge(model), "trained_on": count})
        return curve

    def _noise(self) -> list[dict[str, Any]]:
        rows = []
        for share in self.config.flips:
            rng = np.random.default_rng((self.config.seed, 5))
            noisy = [side.data.flipped(share, rng) for side in self.pairs[:2]]
            model = self.fit(noisy[0], held_out=noisy[1]) if share else self.model
            rows.append({"flipped": share, **self.judge(model)})
        return rows

    def _processes(self, steps: int = 200) -> dict[str, Any]:
        from diffdecide.app.bench.reward_processes import compare_processes

        data = self.pairs[0].data
        return compare_processes(data.take(np.arange(min(2000, len(data)))), self.env_id, steps=steps)

    def _imitation(self) -> dict[str, Any]:
        from diffdecide.app.bench.reward_imitation import fit_imitation, imitation_version

        version = imitation_version()
        train, test = self.pairs[0].data, self.pairs[2]
        score = fit_imitation(train, seed=self.config.seed)
        first, second = score(test.data.first), score(test.data.second)
        return {
            "version": version,
            **judging.judge_deltas(first - second, test),
            "segments": asdict(judging.correlation(first, test.score_1)),
        }

    def _heatmap(self) -> dict[str, str]:
        from reward_models.guide import LearnedPlanScore
        from reward_models.heatmap import draw, reward_map
        from safety import truth
        from safety.dynamics import dynamics_for

        spec, env = envs.spec(self.env_id), envs.make(self.env_id)
        env.reset(seed=9000)
        scene = truth.scene(env)
        picture = reward_map(LearnedPlanScore(self.model, spec), scene, dynamics_for(spec.agent))
        path = draw(picture, scene, self.out.with_suffix(".heatmap.png"), title=f"{self.env_id}: learned reward")
        return {"file": path.name}


def _read(path: Path) -> list[Episode]:
    episodes = read_hdf5(path)
    if len(episodes) < 10:
        raise ValueError(f"{path}: expected at least 10 episodes to split, got {len(episodes)}")
    if episodes[0].metadata.get("env_id") is None:
        raise ValueError(f"{path}: an episode's metadata lacks env_id")
    return episodes


def _facts(path: Path, episodes: list[Episode]) -> dict[str, Any]:
    seeds = [episode.seed for episode in episodes if episode.seed is not None]
    span = [min(seeds), max(seeds)] if seeds else None
    return {"file": path.name, "episodes": len(episodes), "seeds": span, "fingerprint": fingerprint(episodes)}

"""`diffdecide train reward`: a reward model from comparisons."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffdecide.train import TrainConfig

_DEFAULTS = TrainConfig(
    steps=1500,
    batch_size=128,
    learning_rate=2e-3,
    weight_decay=0.3,
    ema_decay=0.98,
    warmup_steps=50,
    eval_every=100,
    checkpoint_every=500,
)


@dataclass(frozen=True, kw_only=True)
class TrainReward:
    """Train a reward model on comparisons of segments, calibrate it, and write its model card.

    On several processes: `torchrun --nproc_per_node 2 -m diffdecide.app train reward ...`.
    """

    data: Annotated[str, tyro.conf.Positional]
    """Preference data: a Parquet file, a folder of them, or a hub id; `diffdecide label` makes them."""
    out: Path
    """Folder of the model."""
    env: str | None = None
    """Environment of the observations: its layout shapes the inputs, and the model refuses any other."""
    held_out: str | None = None
    """Comparisons for early stopping and calibration; without it, trajectories are held out of DATA."""
    mapped: bool = False
    """Leave DATA on disk, for more than fits into memory; needs --held-out."""
    held_out_share: float = 0.3
    """Share of the trajectories held out; comparisons between both sides are lost, so two files are better."""
    network: Literal["linear", "mlp", "transformer", "lora"] = "mlp"
    hidden: int = 64
    depth: int = 2
    members: int = 3
    """Networks in the ensemble."""
    bootstrap: bool = False
    """Every member sees the comparisons with weights of its own."""
    cost_head: bool = False
    """Predict costs as well; the data needs cost_1 and cost_2."""
    ties: Literal["soft", "rao_kupper", "davidson"] = "soft"
    length: Literal["sum", "mean"] = "sum"
    """Whether a segment's score is the sum or the mean of its steps."""
    sparsity: float = 0.0
    """L1 penalty of the linear network; 0.007 suits 5,000 comparisons. Use --learning-rate 2e-2 with it."""
    prompts: str | None = None
    """Condition the reward on the column prompt, encoded by this language model: "minilm" (packaged), a folder or a hub
    id. For --network mlp, transformer or lora."""
    smoothing: float = 0.0
    noise_floor: float = 0.0
    """Share of answers taken for coin flips."""
    pessimism: float = 0.0
    """k in mean - k std over the members."""
    patience: int = 5
    """Evaluations without improvement before the run ends; 0 never ends it."""
    resume: bool = False
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: _DEFAULTS)

    def execute(self) -> int:
        import numpy as np

        from diffdecide.files import require_writable_folder
        from reward_models.config import RewardConfig
        from reward_models.preference_files import MappedPreferences, read_preferences
        from reward_models.preferences import Preferences, doubles
        from reward_models.splits import split
        from reward_models.train import train_reward
        from safety import envs

        spec = None if self.env is None else envs.spec(self.env)
        data: Preferences | MappedPreferences
        train: Preferences | MappedPreferences
        if self.mapped and self.held_out is None:
            raise ValueError("--mapped needs --held-out: data that stay on disk cannot be split")
        data = MappedPreferences(self.data) if self.mapped else read_preferences(self.data)
        first = data if isinstance(data, Preferences) else data.take(range(min(len(data), 256)))
        if self.held_out is not None:
            train, held_out, dropped = data, read_preferences(self.held_out), 0
        else:
            sides = split(first, share=self.held_out_share, rng=np.random.default_rng(self.train.seed))
            train, held_out, dropped = sides.train, sides.held_out, sides.dropped
        if spec is not None and first.observation_dim != spec.observation_dim:
            raise ValueError(
                f"{self.data}: observations are {first.observation_dim} wide, "
                f"those of {self.env} {spec.observation_dim}"
            )
        options = {
            name: getattr(self, name)
            for name in ("network", "hidden", "depth", "members", "bootstrap", "cost_head", "ties", "length")
        }
        options |= {name: getattr(self, name) for name in ("smoothing", "noise_floor", "pessimism", "sparsity")}
        if self.prompts is not None:
            from reward_models.prompts import PromptEncoder

            without = [name for name, side in (("training", first), ("held-out", held_out)) if side.prompt is None]
            if without:
                raise ValueError(f"--prompts: the {' and '.join(without)} side has no column prompt")
            options |= {"prompt_encoder": self.prompts, "prompt_dim": PromptEncoder(self.prompts).width}
        if spec is not None:
            config = RewardConfig.for_spec(spec, **options)
        else:
            config = RewardConfig(observation_dim=first.observation_dim, action_dim=first.action_dim, **options)
        require_writable_folder(self.out)
        main = int(os.environ.get("RANK", "0")) == 0
        if main:
            print(
                f"{len(train)} comparisons to train on, {len(held_out)} held out, {dropped} across both sides left out"
            )
            if isinstance(data, Preferences):
                print(f"in the data: {doubles(data)}")
        result = train_reward(
            config,
            train,
            held_out,
            output_dir=self.out,
            settings=self.train,
            patience=self.patience,
            resume=self.resume,
            card={"data source": Path(self.data).name},
        )
        if main:
            why = "stopped early" if result.stopped_early else "ran to the end"
            print(f"{why} after {result.steps} steps, best at {result.best_step}")
            for name, value in result.figures.items():
                print(f"  {name:<16} {value:.4f}")
            print(f"written to {self.out}")
        return 0

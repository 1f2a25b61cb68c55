"""COptiDICE and CDT of the published OSRL package on our data files: training, saving, loading.

The networks, losses and trainers are OSRL's own (Z. Liu et al., "Datasets and Benchmarks for Offline Safe Reinforcement
Learning", 2023; COptiDICE: J. Lee et al., 2022; CDT: Z. Liu et al., "Constrained Decision Transformer", 2023), with the
settings of its examples. What differs, so that a minute of one core goes as far as it can:

- batches are gathered by index from arrays instead of row by row in Python;
- actions are divided by the range that the data uses, as for behaviour cloning (motors saturate far below the bounds);
- CDT: batches of 64 instead of 2048, a warm-up of 50 steps instead of 500, no augmentation of the data.

OSRL's own checkpoints are pickles. None is read or written here: weights are safetensors, settings JSON.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffdecide.app.bench.timing import Stopwatch
from diffdecide.files import read_json, write_json

if TYPE_CHECKING:
    from diffdecide.data.episode import Episode

ALGORITHMS = ("coptidice", "cdt")
MARK = "osrl.json"
INSTALL = "pip install --no-deps -r requirements-osrl.txt"
_COPTIDICE: dict[str, Any] = {
    "f_type": "softchi", "a_hidden_sizes": [256, 256], "c_hidden_sizes": [256, 256], "gamma": 0.99, "alpha": 0.5,
    "cost_ub_epsilon": 0.01, "num_nu": 2, "num_chi": 2,
}  # fmt: skip
_CDT: dict[str, Any] = {
    "embedding_dim": 128, "num_layers": 3, "num_heads": 8, "attention_dropout": 0.1, "residual_dropout": 0.1,
    "embedding_dropout": 0.1, "time_emb": True, "use_rew": True, "use_cost": True, "cost_transform": True,
    "stochastic": True, "init_temperature": 0.1,
}  # fmt: skip
SEQUENCE = 10  # steps that CDT attends to
REWARD_SCALE = 0.1
_COPTIDICE_BATCH, _CDT_BATCH = 512, 64


def require_osrl() -> None:
    """Import OSRL.

    Raises:
        ImportError: it is not installed, or does not import; the message names the command that brings it.
    """
    # Imported by OSRL for its loggers, which are not used: nothing may be sent anywhere.
    os.environ.setdefault("WANDB_MODE", "disabled")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        with _quiet():
            import osrl.algorithms
            import osrl.common  # noqa: F401
    except ImportError as error:
        raise ImportError(f"COptiDICE and CDT need OSRL: {INSTALL} ({error})") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@dataclass(frozen=True, kw_only=True)
class OSRLConfig:
    """What a saved model is.

    Attributes:
        algorithm: one of `ALGORITHMS`.
        observation_dim, action_dim: sizes.
        episode_len: control steps of an episode.
        cost_limit: what COptiDICE was trained for; None for CDT, which is told when it acts.
    """

    algorithm: str
    observation_dim: int
    action_dim: int
    episode_len: int
    cost_limit: float | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {self.algorithm!r}")
        for name in ("observation_dim", "action_dim", "episode_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"OSRLConfig.{name} must be at least 1, got {getattr(self, name)}")
        if (self.cost_limit is None) == (self.algorithm == "coptidice"):
            raise ValueError(f"COptiDICE is trained for a cost limit and CDT for none, got {self.cost_limit=}")
        if self.cost_limit is not None and not 0 <= self.cost_limit < float("inf"):
            raise ValueError(f"cost_limit must be finite and >= 0, got {self.cost_limit}")


class OSRLModel:
    """A network of OSRL with what is needed to act with it.

    Attributes:
        config: what it is.
        network: `osrl.algorithms.COptiDICE` or `CDT`.
        reach: [a] action per unit of the network's output.
        episodes: [N, 2] return and cost of the episodes it was trained on.
    """

    def __init__(self, config: OSRLConfig, network: nn.Module, reach: np.ndarray, episodes: np.ndarray) -> None:
        self.config, self.network = config, network
        self.reach, self.episodes = reach, episodes

    def target_return(self, limit: float) -> float:
        """The best return that an episode of the data reached within `limit`; of its cheapest tenth where none did."""
        returns, costs = self.episodes[:, 0], self.episodes[:, 1]
        within = costs <= max(limit, float(np.quantile(costs, 0.1)))
        return float(returns[within].max())

    def save_pretrained(self, folder: str | Path) -> None:
        """Write osrl.safetensors and osrl.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {f"network.{name}": value.detach().clone() for name, value in self.network.state_dict().items()}
        extra = {"reach": self.reach, "episodes": self.episodes}
        state |= {name: torch.tensor(value, dtype=torch.float32) for name, value in extra.items()}
        save_file(state, folder / "osrl.safetensors")
        write_json(folder / MARK, asdict(self.config))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> OSRLModel:
        """Read a saved model.

        Raises:
            ImportError: OSRL is not installed.
            ValueError: the folder holds no such model.
        """
        require_osrl()
        try:
            config = OSRLConfig(**read_json(Path(folder) / MARK))
            state = load_file(Path(folder) / "osrl.safetensors")
            reach, episodes = (state.pop(name).numpy() for name in ("reach", "episodes"))
            network = _network(config)
            network.load_state_dict({name.removeprefix("network."): value for name, value in state.items()})
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ValueError(f"{folder} holds no model of OSRL that can be read: {error}") from None
        return cls(config, network.eval(), reach, episodes)


def _network(config: OSRLConfig, **statistics: Any) -> nn.Module:
    from osrl.algorithms import CDT, COptiDICE

    sizes = {"state_dim": config.observation_dim, "action_dim": config.action_dim, "max_action": 1.0}
    if config.algorithm == "cdt":
        return CDT(**sizes, **_CDT, seq_len=SEQUENCE, episode_len=config.episode_len, target_entropy=-config.action_dim)
    unknown = {
        "init_state_propotion": 1.0,
        "observations_std": np.ones((1, config.observation_dim), np.float32),
        "actions_std": np.ones((1, config.action_dim), np.float32),
    }
    given = unknown | statistics
    return COptiDICE(**sizes, **_COPTIDICE, **given, cost_limit=config.cost_limit, episode_len=config.episode_len)


def train_osrl(
    episodes: Sequence[Episode],
    algorithm: str,
    out: Path,
    *,
    seed: int,
    seconds: float,
    episode_len: int,
    cost_limit: float | None = None,
) -> dict[str, Any]:
    """Train on `episodes` for `seconds` of processor time and save to `out`; what came of it.

    Args:
        episode_len: control steps of an episode in the environment.
        cost_limit: cost per episode that COptiDICE is trained for; None for CDT.

    Raises:
        ImportError: OSRL is not installed.
        ValueError: no episodes, episodes longer than `episode_len`, or a wrong limit.
    """
    require_osrl()
    if not episodes:
        raise ValueError("expected at least one episode, got none")
    longest = max(len(episode) for episode in episodes)
    if longest > episode_len:
        raise ValueError(f"the environment's episodes have {episode_len} steps, the data has one of {longest}")
    widths = episodes[0].observations.shape[1], episodes[0].actions.shape[1]
    config = OSRLConfig(
        algorithm=algorithm,
        observation_dim=widths[0],
        action_dim=widths[1],
        episode_len=episode_len,
        cost_limit=cost_limit,
    )
    data, reach = _arrays(episodes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = np.random.default_rng(seed)
        build = _coptidice if algorithm == "coptidice" else _cdt
        network, step = build(config, data, generator)
        watch, steps = Stopwatch(), 0
        while watch.spent < seconds or steps == 0:
            step()
            steps += 1
        spent, wall = watch.spent, watch.wall
    table = np.array([[episode.total_return, episode.total_cost] for episode in episodes], dtype=np.float32)
    OSRLModel(config, network, reach, table).save_pretrained(out)
    return {"steps": steps, "seconds": spent, "wall": wall, "episodes": len(episodes)}


def _arrays(episodes: Sequence[Episode]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The flat arrays that OSRL takes, actions in units of their range [a]."""
    names = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")
    data = {
        name: np.concatenate([np.asarray(getattr(episode, name), dtype=np.float32) for episode in episodes])
        for name in names
    }
    # An episode that was cut off (neither flag set) must not run into the next one.
    ends = np.cumsum([len(episode) for episode in episodes]) - 1
    data["timeouts"][ends] = np.maximum(data["timeouts"][ends], 1 - data["terminals"][ends])
    reach = np.quantile(np.abs(data["actions"]), 0.99, axis=0).clip(1e-6).astype(np.float32)
    data["actions"] = (data["actions"] / reach).clip(-1, 1)
    return data, reach


Step = Callable[[], None]


def _coptidice(
    config: OSRLConfig, data: dict[str, np.ndarray], generator: np.random.Generator
) -> tuple[nn.Module, Step]:
    from osrl.algorithms import COptiDICETrainer
    from osrl.common import TransitionDataset

    rows = TransitionDataset(data, reward_scale=REWARD_SCALE, cost_scale=1.0, state_init=True)
    share, observation_std, action_std = rows.get_dataset_states()
    network = _network(config, init_state_propotion=share, observations_std=observation_std, actions_std=action_std)
    trainer = COptiDICETrainer(
        network, None, actor_lr=1e-4, critic_lr=1e-4, scalar_lr=1e-4, reward_scale=REWARD_SCALE, cost_scale=1.0
    )
    names = ("observations", "next_observations", "actions", "rewards", "costs", "done", "is_init")
    table = [torch.from_numpy(np.asarray(rows.dataset[name], dtype=np.float32)) for name in names]
    table[3] = table[3] * REWARD_SCALE

    def step() -> None:
        chosen = torch.from_numpy(generator.integers(len(table[0]), size=_COPTIDICE_BATCH))
        trainer.train_one_step([column[chosen] for column in table])

    return network, step


def _cdt(config: OSRLConfig, data: dict[str, np.ndarray], generator: np.random.Generator) -> tuple[nn.Module, Step]:
    from osrl.algorithms import CDTTrainer
    from osrl.common import SequenceDataset

    cheapness = lambda cost: 70 - cost  # noqa: E731 - OSRL's weight of an episode, 0 where it is negative
    starts = np.flatnonzero(np.concatenate([[True], (data["terminals"] + data["timeouts"])[:-1] > 0]))
    costs = np.add.reduceat(data["costs"], starts)
    with _quiet():
        sequences = SequenceDataset(
            data,
            seq_len=SEQUENCE,
            reward_scale=REWARD_SCALE,
            cost_scale=1.0,
            augment_percent=0,
            # Where every episode costs more than that, its weights would be 0 / 0.
            cost_sample=bool((costs < 70).any()),
            cost_transform=cheapness,
        )
    network = _network(config)
    trainer = CDTTrainer(
        network,
        None,
        learning_rate=1e-4,
        weight_decay=1e-4,
        clip_grad=0.25,
        lr_warmup_steps=50,
        reward_scale=REWARD_SCALE,
        cost_scale=1.0,
        loss_cost_weight=0.02,
    )
    names = ("observations", "actions", "returns", "cost_returns", "costs")
    table = {name: np.concatenate([episode[name] for episode in sequences.dataset]) for name in names}
    table["returns"] = table["returns"] * REWARD_SCALE
    table["costs"] = table["costs"].clip(0, 1)  # a class: whether the step cost something
    lengths = np.array([len(episode["rewards"]) for episode in sequences.dataset])
    begins = np.cumsum(lengths) - lengths

    def step() -> None:
        episode = generator.choice(len(lengths), size=_CDT_BATCH, p=sequences.sample_prob)
        time_steps = generator.integers(lengths[episode])[:, None] + np.arange(SEQUENCE)
        mask = (time_steps < lengths[episode, None]).astype(np.float32)
        index = begins[episode, None] + np.minimum(time_steps, lengths[episode, None] - 1)
        window = {name: _masked(values[index], mask) for name, values in table.items()}
        trainer.train_one_step(
            window["observations"],
            window["actions"],
            window["returns"],
            window["cost_returns"],
            torch.from_numpy(time_steps),
            torch.from_numpy(mask),
            torch.from_numpy(table["cost_returns"][begins[episode]]),
            window["costs"],
        )

    return network, step


def _masked(values: np.ndarray, mask: np.ndarray) -> Tensor:
    shaped = mask.reshape(*mask.shape, *[1] * (values.ndim - mask.ndim))
    return torch.from_numpy((values * shaped).astype(np.float32))

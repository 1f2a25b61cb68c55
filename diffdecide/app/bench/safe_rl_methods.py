"""The rows of the safe-RL benchmark: what each method is, what it trains, and the policy that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.app.bench.flat_cloning import FlatCloningPolicy, train_flat_cloning
from diffdecide.app.bench.learned_guard import LearnedGuardedFactory, has_geometry, train_learned_guard
from diffdecide.app.bench.osrl import train_osrl
from diffdecide.app.bench.osrl_policy import osrl_policy
from diffdecide.app.bench.ours import (
    AGENT_SETTINGS,
    OursConfig,
    OursPolicy,
    embedded_heeds_limit,
    is_embedded,
    train_agent_within,
    train_sequence_within,
)
from diffdecide.app.bench.timing import one_core
from diffdecide.app.embedded import PLANNERS
from diffdecide.app.guarded import GuardedFactory
from diffdecide.files import read_json, write_json
from diffdecide.policy import Action, Policy
from safety.envs import spec

if TYPE_CHECKING:
    from safety.layout import EnvSpec

Factory = Callable[[], Policy]


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One row.

    Attributes:
        title: in the table.
        base: "ours", "ours-budget", "bc", "coptidice", "cdt", "random", "proportional" or "mpc".
        guarded: behind the filter: by geometry where what costs has a place, else the learned one.
        variant: which part of ours is taken away, see `diffdecide.app.bench.ours.VARIANTS`.
        safe_only: cloning takes only episodes whose cost is within the limit.
    """

    title: str
    base: str
    guarded: bool = False
    variant: str = "full"
    safe_only: bool = False

    def is_sequence(self, env_id: str) -> bool:
        """Whether it is a sequence planner of the task's data file: where no planner with geometry can be trained."""
        return (self.base == "ours" and not is_embedded(env_id)) or (
            self.base == "ours-budget" and env_id not in PLANNERS
        )

    def is_trained(self, env_id: str) -> bool:
        """Whether it is trained here, and so run for every training seed."""
        if self.base == "ours":
            return not is_embedded(env_id)
        return self.base in ("ours-budget", "bc", "coptidice", "cdt")

    @property
    def model_per_limit(self) -> bool:
        """Whether every cost limit takes a model of its own; they share the method's budget."""
        return self.safe_only or self.base == "coptidice"

    def heeds_limit(self, env_id: str) -> bool:
        """Whether what it does depends on the cost limit; of other methods the limits share their episodes."""
        if self.base == "ours" and is_embedded(env_id):
            return embedded_heeds_limit(env_id)
        if self.is_sequence(env_id):
            return self.variant != "no-guidance"
        return self.model_per_limit or self.base == "cdt"


METHODS: dict[str, MethodSpec] = {
    "ours": MethodSpec(title="**ours: planner + filter**", base="ours", guarded=True),
    "ours-no-filter": MethodSpec(title="ours, no filter", base="ours"),
    "ours-no-guidance": MethodSpec(title="ours, no cost guidance", base="ours", guarded=True, variant="no-guidance"),
    "ours-no-ranking": MethodSpec(title="ours, no ranking", base="ours", guarded=True, variant="no-ranking"),
    "ours-gaussian": MethodSpec(title="ours, Gaussian candidates", base="ours", guarded=True, variant="gaussian"),
    "ours-budget": MethodSpec(title="ours, trained within the budget", base="ours-budget", guarded=True),
    "bc": MethodSpec(title="BC", base="bc"),
    "bc-filter": MethodSpec(title="BC + filter", base="bc", guarded=True),
    "bc-safe": MethodSpec(title="BC-Safe", base="bc", safe_only=True),
    "bc-safe-filter": MethodSpec(title="BC-Safe + filter", base="bc", guarded=True, safe_only=True),
    "coptidice": MethodSpec(title="COptiDICE (OSRL)", base="coptidice"),
    "coptidice-filter": MethodSpec(title="COptiDICE (OSRL) + filter", base="coptidice", guarded=True),
    "cdt": MethodSpec(title="CDT (OSRL)", base="cdt"),
    "cdt-filter": MethodSpec(title="CDT (OSRL) + filter", base="cdt", guarded=True),
    "proportional": MethodSpec(title="proportional controller", base="proportional"),
    "proportional-filter": MethodSpec(title="proportional controller + filter", base="proportional", guarded=True),
    "random": MethodSpec(title="random", base="random"),
    "random-filter": MethodSpec(title="random + filter", base="random", guarded=True),
    "mpc": MethodSpec(title="MPC on ground truth (ceiling)", base="mpc"),
    "mpc-filter": MethodSpec(title="MPC on ground truth + filter", base="mpc", guarded=True),
}


@dataclass(frozen=True)
class Cell:
    """One method in one environment, with one training seed and one limit (None: it makes no difference)."""

    env: str
    method: str
    training_seed: int | None
    limit: float | None

    @property
    def name(self) -> str:
        """Names the cell within its environment."""
        seed = "" if self.training_seed is None else f"_seed{self.training_seed}"
        limit = "" if self.limit is None else f"_limit{self.limit:g}"
        return f"{self.method}{seed}{limit}"

    @property
    def label(self) -> str:
        """Names the cell within the benchmark."""
        return f"{self.env}/{self.name}"

    @property
    def model(self) -> str | None:
        """Name of the model that it needs trained, shared with other cells; None where nothing is trained."""
        method = METHODS[self.method]
        if not method.is_trained(self.env):
            return None
        kind = {"ours": "sequence", "ours-budget": "planner"}.get(method.base, method.base)
        if method.is_sequence(self.env):
            kind = "sequence"
        if method.safe_only:
            kind += f"-safe{self.limit:g}"
        if method.base == "coptidice":
            kind += f"{self.limit:g}"
        return f"{kind}_seed{self.training_seed}"

    def file(self, out: Path) -> Path:
        """Its episodes."""
        return out / self.env / f"{self.name}.json"

    def reason_file(self, out: Path) -> Path:
        """Why it could not be run."""
        return out / self.env / "not_run" / f"{self.name}.json"


@dataclass(frozen=True, kw_only=True)
class Means:
    """What cells are run with.

    Attributes:
        file: data file of the cell's environment; None where there is none.
        models: folder of the environment's trained models.
        seconds: training time per method and training seed, of one core.
        limits: cost limits in the table; methods with a model for each divide their time by them.
        margin: m, of the geometric filter.
        default_limit: taken by methods that need some limit but do not heed it.
    """

    file: str | None
    models: Path
    seconds: float
    limits: int
    margin: float
    default_limit: float


class UniformPolicy:
    """Uniformly random actions in [-1, 1]; for any task."""

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        """Begin an episode."""
        self._generator, self._size = np.random.default_rng(seed), spec.action_dim

    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        return Action(self._generator.uniform(-1, 1, self._size), {})


def build(cell: Cell, means: Means) -> Factory:
    """The policy of a cell, its model trained where that has not been done yet.

    Raises:
        ImportError: OSRL is not installed.
        ValueError: the method cannot be run in this environment, or there is no data.
    """
    method = METHODS[cell.method]
    if method.base in ("ours", "ours-budget") and not method.is_sequence(cell.env):
        return _agent(cell, method, means)
    if method.base == "ours-budget" and not is_embedded(cell.env):
        raise ValueError("the same as `ours` here, which is always trained within the budget")
    geometric = has_geometry(spec(cell.env))
    learned = str(_guard(cell, means)) if method.guarded and not geometric else None
    if method.is_sequence(cell.env):
        row = OursConfig(
            planner=str(_trained(cell, method, means)),
            variant=method.variant,
            limit=means.default_limit if cell.limit is None else cell.limit,
            margin=means.margin if method.guarded and geometric else None,
            learned=learned,
        )
        return partial(OursPolicy, row)
    factory = _unguarded(cell, method, means)
    if not method.guarded:
        return factory
    return LearnedGuardedFactory(factory, learned) if learned else GuardedFactory(factory, means.margin)


def _agent(cell: Cell, method: MethodSpec, means: Means) -> Factory:
    """The agent with its own filter, which its plans are made for; the guard is for everybody else."""
    from diffdecide.app.agent import AgentConfig
    from diffdecide.app.agent_policy import PolicyConfig, agent_policy, find_planner

    folder = _trained(cell, method, means) if method.base == "ours-budget" else find_planner("default", cell.env)
    operator = AgentConfig(margin=means.margin, filtered=method.guarded, cost_limit=cell.limit or 0.0)
    return partial(
        agent_policy, PolicyConfig(planner=str(folder), agent=operator, settings=AGENT_SETTINGS[method.variant])
    )


def _unguarded(cell: Cell, method: MethodSpec, means: Means) -> Factory:
    if method.base == "random":
        return UniformPolicy
    if method.base in ("proportional", "mpc"):
        from diffdecide.app.policies import baseline_factory

        if not has_geometry(spec(cell.env)):
            raise ValueError("this controller drives among things that have a place, which is not the task here")
        return baseline_factory(method.base, filtered=False, margin=means.margin, guarded=method.guarded)
    folder = str(_trained(cell, method, means))
    if method.base == "bc":
        return partial(FlatCloningPolicy, folder)
    return partial(osrl_policy, folder, means.default_limit if cell.limit is None else cell.limit)


def _guard(cell: Cell, means: Means) -> Path:
    """The learned filter of this environment and training seed; one for all methods."""
    seed = cell.training_seed or 0
    return _made(
        means.models / f"filter_seed{seed}",
        lambda out: train_learned_guard(_data(cell, means), out, seed=seed, seconds=means.seconds),
        {"budget": means.seconds, "data": _told(_data(cell, means))},
    )


def _trained(cell: Cell, method: MethodSpec, means: Means) -> Path:
    """The model of this cell; with and without filter it is the same one."""
    if cell.model is None:
        raise ValueError(f"{cell.method} is not trained in {cell.env}")
    file, seed = _data(cell, means), int(cell.training_seed or 0)
    seconds = means.seconds / means.limits if method.model_per_limit else means.seconds
    budget: dict[str, Any] = {"seed": seed, "seconds": seconds}

    def train(out: Path) -> dict[str, Any]:
        if method.is_sequence(cell.env):
            return train_sequence_within(file, cell.env, out, **budget)
        if method.base == "ours-budget":
            return train_agent_within(file, cell.env, out, **budget)
        from diffdecide.data.readers import read

        episodes = list(read(file))
        if method.base == "bc":
            return train_flat_cloning(episodes, out, **budget, safe_below=cell.limit if method.safe_only else None)
        limit = cell.limit if method.base == "coptidice" else None
        length = spec(cell.env).max_steps
        return train_osrl(episodes, method.base, out, **budget, episode_len=length, cost_limit=limit)

    return _made(means.models / cell.model, train, {"budget": seconds, "data": _told(file)})


def _told(file: str) -> dict[str, Any]:
    """What says that a data file is another one."""
    return {"file": Path(file).name, "bytes": Path(file).stat().st_size}


def _made(folder: Path, train: Callable[[Path], dict[str, Any]], made_with: dict[str, Any]) -> Path:
    """`folder`, trained on one core unless it was already; training.json comes last.

    Results are passed on with the training.json of their models but without the models: then it is trained again.

    Raises:
        ValueError: it was trained with another budget or on another file than `made_with` says.
    """
    file = folder / "training.json"
    before = read_json(file).get("made_with", made_with) if file.exists() else made_with
    if before != made_with:
        raise ValueError(f"{folder.name} was trained with {before}, not {made_with}: use another folder of results")
    if not file.exists() or not any(folder.rglob("*.safetensors")):
        with one_core():
            facts = train(folder)
        write_json(file, facts | {"made_with": made_with})
    return folder


def _data(cell: Cell, means: Means) -> str:
    if means.file is None:
        raise ValueError(f"no data file for {cell.env}: name one with --data")
    return means.file

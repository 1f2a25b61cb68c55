"""How the embedded models are made from nothing: every step is a command that can be run by hand.

`{data}`, `{runs}` and `{workers}` are filled in by `diffdecide pretrained`. Seeds of training data are 0 to 4999.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Just enough of everything: two episodes, so that one can be held out.
_REHEARSAL = {"--episodes": "2", "--steps": "5", "--batch-size": "16"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command that makes something.

    Attributes:
        name: of the step.
        words: the command line behind `diffdecide`.
        minutes: wall clock on 2 cores, as measured when the embedded models were made; None where it was not noted.
    """

    name: str
    words: tuple[str, ...]
    minutes: float | None = None

    @property
    def trains(self) -> bool:
        """Whether the command knows --resume (collecting goes on by itself)."""
        return self.words[0] == "train"

    def command(self, places: Mapping[str, str], *, rehearsal: bool = False) -> list[str]:
        """The words with data folder, run folder and number of workers filled in; a rehearsal does very little."""
        words = [word.format_map(places) for word in self.words]
        if rehearsal:
            for index in range(1, len(words)):
                words[index] = _REHEARSAL.get(words[index - 1], words[index])
        return words


@dataclass(frozen=True, kw_only=True)
class Model:
    """An embedded model: which run it comes from, and what is decided about it after training.

    Attributes:
        folder: below `diffdecide/app/pretrained`.
        kind: "planner", "cloning" or "bridge".
        run: folder below {runs}.
        steps: names of the steps that it needs, in their order.
        settings: of `PlannerConfig`, chosen on selection seeds (5000 to 9999).
        environments: whose results its card shows.
    """

    folder: str
    kind: str
    run: str
    steps: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    environments: tuple[str, ...] = ()


def _collect(name: str, env: str, episodes: int, *more: str, seed: int = 0, minutes: float | None = None) -> Step:
    words = ("collect", "--env", env, "--episodes", str(episodes), "--seed", str(seed), "--workers", "{workers}")
    return Step(name=name, words=(*words, *more, "--out", f"{{data}}/{name}.hdf5"), minutes=minutes)


def _train(name: str, what: str, data: tuple[str, ...], *more: str, minutes: float | None = None) -> Step:
    files = tuple(f"{{data}}/{file}.hdf5" for file in data)
    return Step(name=name, words=("train", what, *files, "--out", f"{{runs}}/{name}", *more), minutes=minutes)


def _critic(name: str, planner: str, data: tuple[str, ...], *more: str, minutes: float | None = None) -> Step:
    files = tuple(f"{{data}}/{file}.hdf5" for file in data)
    return Step(name=name, words=("train", "value", *files, "--planner", f"{{runs}}/{planner}", *more), minutes=minutes)


_CRITIC = ("--steps", "2500", "--batch-size", "512", "--learning-rate", "6e-4", "--seed", "0")
_PLANNER = ("--steps", "8000", "--batch-size", "512", "--learning-rate", "6e-4", "--seed", "0")
_CLONING = ("--steps", "4000", "--batch-size", "512", "--learning-rate", "6e-4", "--seed", "0")

STEPS = (
    _collect("point_goal", "SafetyPointGoal1-v0", 120, minutes=11.5),
    _collect("point_zones", "SafetyPointZones1-v0", 160, minutes=7.8),
    _collect("car_goal", "SafetyCarGoal1-v0", 120, minutes=13.4),
    _collect("car_zones", "SafetyCarZones1-v0", 84, minutes=5.5),
    _train("point", "planner", ("point_goal", "point_zones"), *_PLANNER),
    _train("car", "planner", ("car_goal", "car_zones"), *_PLANNER),
    _critic("point_critic", "point", ("point_goal", "point_zones"), *_CRITIC),
    _critic("car_critic", "car", ("car_goal", "car_zones"), *_CRITIC),
    _train("point_cloning", "bc", ("point_goal", "point_zones"), *_CLONING),
    _train("car_cloning", "bc", ("car_goal", "car_zones"), *_CLONING),
    Step(
        name="bridge",
        words=("train", "bridge", "--out", "{runs}/bridge", "--seed", "0", "--steps", "4000"),
        minutes=43.1,
    ),
)
MODELS = (
    Model(
        folder="point",
        kind="planner",
        run="point",
        steps=("point_goal", "point_zones", "point", "point_critic"),
        environments=("SafetyPointGoal1-v0", "SafetyPointZones1-v0"),
    ),
    Model(
        folder="car",
        kind="planner",
        run="car",
        steps=("car_goal", "car_zones", "car", "car_critic"),
        settings={"escapes": True, "stopped_cost": 2.0},
        environments=("SafetyCarGoal1-v0", "SafetyCarZones1-v0"),
    ),
    Model(
        folder="point_cloning",
        kind="cloning",
        run="point_cloning",
        steps=("point_goal", "point_zones", "point_cloning"),
        environments=("SafetyPointGoal1-v0",),
    ),
    Model(
        folder="car_cloning",
        kind="cloning",
        run="car_cloning",
        steps=("car_goal", "car_zones", "car_cloning"),
        environments=("SafetyCarGoal1-v0",),
    ),
    Model(folder="bridge", kind="bridge", run="bridge", steps=("bridge",)),
)


def step_named(name: str) -> Step:
    """The step called `name`; ValueError for an unknown one."""
    for step in STEPS:
        if step.name == name:
            return step
    raise ValueError(f"unknown step {name!r}; expected one of {', '.join(step.name for step in STEPS)}")


def models_named(names: tuple[str, ...]) -> tuple[Model, ...]:
    """The models in folders `names`, all where none is named; ValueError for an unknown one."""
    known = [model.folder for model in MODELS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown models {', '.join(unknown)}; expected some of {', '.join(known)}")
    return tuple(model for model in MODELS if not names or model.folder in names)


def steps_for(models: tuple[Model, ...]) -> tuple[Step, ...]:
    """The steps that `models` need, each once, in their order."""
    needed = {name for model in models for name in model.steps}
    return tuple(step for step in STEPS if step.name in needed)

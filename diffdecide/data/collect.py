"""Collecting episodes in parallel by behaviour policies with knobs for skill, risk and noise.

Every episode draws its knobs from its seed, so a data set is the same for any number of workers and a killed run goes
on where it stopped. The sampling MPC drives with ground truth; beside what was executed it leaves its plan as a label
every few steps, also in states that noise and disturbances have led to (DART: Laskey et al., 2017).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from diffdecide.data.disturbance import Disturbance
from diffdecide.data.episode import Episode
from diffdecide.data.writers import ShardedWriter
from diffdecide.policy import Policy, TaskPolicy
from safety import envs, truth
from safety.caution import PLAN_EXTRA, margin_for
from safety.controllers.circle import CircleJudge
from safety.controllers.errand import errand
from safety.controllers.mpc import MPCConfig, SamplingMPC
from safety.controllers.objective import SubGoal
from safety.controllers.proportional import ProportionalController
from safety.dynamics import dynamics_for
from safety.scene import Scene
from safety.tasks.driving import DrivingView
from safety.tasks.sampling import random_task
from safety.tasks.spec import TaskJudge, TaskSpec
from safety.walls import Walls

Behaviour = Literal["mpc", "proportional", "random", "policy"]


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """How a data set is collected. Ranges are drawn from uniformly, once per episode.

    `skill` is the share of steps that the controller decides; in the others a random command is held. `margin` is what
    the MPC keeps beyond the caution's own margin (of walls, without one); negative margins are reckless. Seeds of
    training data are 0 to 4999.
    """

    env: str
    out: Path
    episodes: int = 100
    seed: int = 0
    workers: int = 1
    behaviour: Behaviour = "mpc"
    skill: tuple[float, float] = (0.7, 1.0)
    margin: tuple[float, float] = (PLAN_EXTRA, PLAN_EXTRA)
    noise: tuple[float, float] = (0.0, 0.3)
    rest_beside_hazards: float = 0.5  # share of disturbances that drive at the nearest hazard and stop there
    replan: int = 4  # control steps between MPC plans
    label: bool = True  # keep the MPC's plans as labels
    candidates: int = 300
    rounds: int = 2

    def __post_init__(self) -> None:
        for name, low, high in (("skill", 0.0, 1.0), ("noise", 0.0, 10.0), ("margin", -0.3, 0.5)):
            pair = getattr(self, name)
            if not low <= pair[0] <= pair[1] <= high:
                raise ValueError(f"collect: {name} must be a range (low, high) within [{low}, {high}], got {pair}")
        if self.episodes < 1 or self.workers < 1 or self.replan < 1:
            raise ValueError(f"collect: {self.episodes=}, {self.workers=} and {self.replan=} must be at least 1")
        if self.behaviour not in get_args(Behaviour):
            raise ValueError(f"collect: behaviour must be one of {get_args(Behaviour)}, got {self.behaviour!r}")

    def settings(self) -> dict[str, Any]:
        """What two runs must share to go into one file."""
        skip = ("out", "episodes", "workers", "seed")
        return {name: value for name, value in asdict(self).items() if name not in skip}


def collect(config: CollectConfig, *, driver: Callable[[], Policy] | None = None, progress: bool = True) -> Path:
    """Collect `config.episodes` episodes into the HDF5 file `config.out`; seeds already on disk are skipped.

    With behaviour "policy", `driver` (picklable) makes the policy that drives, on observations alone, while the MPC
    labels the states it visits (DAgger: Ross et al., 2011).
    """
    if (driver is None) == (config.behaviour == "policy"):
        raise ValueError("collect: a driver goes with the behaviour 'policy' and with no other")
    envs.spec(config.env)  # an unknown id fails here, before any worker starts
    config.out.parent.mkdir(parents=True, exist_ok=True)
    writer = ShardedWriter(config.out, settings=config.settings())
    missing = writer.missing(range(config.seed, config.seed + config.episodes))
    done = config.episodes - len(missing)
    with tqdm(total=config.episodes, initial=done, desc=f"collect {config.env}", disable=not progress) as bar:
        returns: list[float] = []
        costs: list[float] = []
        for episode in _episodes(config, driver, missing):
            writer.add([episode])
            returns.append(episode.total_return)
            costs.append(episode.total_cost)
            bar.set_postfix({"return": f"{np.mean(returns):.1f}", "cost": f"{np.mean(costs):.1f}"}, refresh=False)
            bar.update(1)
    return writer.merge()


def _episodes(config: CollectConfig, driver: Callable[[], Policy] | None, seeds: list[int]) -> Iterator[Episode]:
    if config.workers == 1:
        collector = _Collector(config, driver)
        yield from (collector.episode(seed) for seed in seeds)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(
        min(config.workers, max(len(seeds), 1)), initializer=_start_worker, initargs=(config, driver)
    ) as pool:
        yield from pool.imap_unordered(_worker_episode, seeds)


_worker: _Collector | None = None


def _start_worker(config: CollectConfig, driver: Callable[[], Policy] | None) -> None:
    global _worker
    if driver is not None:
        import torch

        torch.set_num_threads(1)
    _worker = _Collector(config, driver)


def _worker_episode(seed: int) -> Episode:
    if _worker is None:
        raise RuntimeError("the collecting process was not initialised")
    return _worker.episode(seed)


class _Collector:
    """One environment and its controllers, used for one episode after another."""

    def __init__(self, config: CollectConfig, driver: Callable[[], Policy] | None = None) -> None:
        self.config = config
        self.driver = None if driver is None else driver()
        self.env = envs.make(config.env)
        self.spec = envs.spec(config.env)
        self.dynamics = dynamics_for(self.spec.agent)
        self.zones = "Zones" in config.env
        self.view = None if self.zones else DrivingView(self.spec)
        self.walls = Walls(self.spec).world()
        self.proportional = ProportionalController(self.dynamics)

    def episode(self, seed: int) -> Episode:
        """The episode of `seed`, the same in every process."""
        config = self.config
        rng = np.random.default_rng([seed, 1])
        knobs = {name: float(rng.uniform(*getattr(config, name))) for name in ("skill", "margin", "noise")}
        mpc = SamplingMPC(
            self.dynamics, MPCConfig(candidates=config.candidates, rounds=config.rounds, replan=config.replan)
        )
        mpc.reset(seed=seed)
        disturbance = Disturbance(
            self.dynamics, rng, share=1 - knobs["skill"], beside_hazards=config.rest_beside_hazards
        )
        tasks = _TaskStream(rng) if self.zones else None
        observation, _ = self.env.reset(seed=seed)
        if self.view is not None:
            self.view.reset()
        if self.driver is not None:
            self.driver.reset(self.spec, seed=seed)
        told: TaskSpec | None = None
        record = _Record()
        for step in range(self.spec.max_steps):
            scene = truth.scene(self.env)
            driven, wanted = self._wanted(scene, tasks, knobs["margin"])
            caution = tasks.task.caution if tasks else "rush"
            plan = None
            if tasks and isinstance(self.driver, TaskPolicy) and tasks.task is not told:
                told = tasks.task
                self.driver.assign(told)
            if config.behaviour in ("mpc", "policy"):
                mpc.config = replace(mpc.config, margin=max(0.0, margin_for(caution) + knobs["margin"]))
                if step % config.replan == 0:
                    plan = mpc.plan(driven, wanted, elapsed=config.replan if step else 0)
                    current = plan
                action = current[step % config.replan]
                if self.driver is not None:
                    action = self.driver.act(observation).value
            elif config.behaviour == "proportional":
                assert isinstance(wanted, SubGoal)
                action = self.proportional.act(driven, wanted)
            else:
                action = self.dynamics.command(rng.uniform(-1, 1, 2))
            executed = disturbance.apply(np.asarray(action, dtype=np.float64), scene, noise=knobs["noise"])
            before = observation
            observation, reward, terminated, truncated, info = self.env.step(executed)
            record.add(before, observation, executed, reward, info, tasks.index if tasks else 0)
            record.plan(plan if config.label else None)
            if tasks:
                tasks.update(info["inside"])
            if terminated or truncated:
                break
        metadata = {"env_id": config.env, "seed": seed, "behaviour": config.behaviour, **knobs}
        if tasks:
            metadata["sub_goals"] = tasks.history
        return record.episode(metadata, terminated=bool(terminated))

    def _wanted(self, scene: Scene, tasks: _TaskStream | None, margin: float) -> tuple[Scene, SubGoal | CircleJudge]:
        """The scene to plan in and what the controller is asked to do there."""
        if tasks is not None:
            return scene, tasks.sub_goal()
        assert self.view is not None  # only zone tasks have none
        if self.config.behaviour == "proportional":
            return self.view.see(scene, self.walls), SubGoal(target="goal")
        return errand(self.view, scene, self.walls, margin=margin)


class _TaskStream:
    """One random task after another, so that an episode is not over when the first one is."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.history: list[dict[str, Any]] = []  # what `subgoals` indexes: {"task": …, "index": i}
        self._next()

    def _next(self) -> None:
        self.task: TaskSpec = random_task(self.rng)
        self.judge = TaskJudge(self.task)
        self._remember()

    def _remember(self) -> None:
        self.history.append({"task": self.task.to_dict(), "index": self.judge.verdict.current})

    @property
    def index(self) -> int:
        return len(self.history) - 1

    def sub_goal(self) -> SubGoal:
        target = self.task.targets[self.judge.verdict.current]
        return SubGoal(target=f"{target}_zone", dwell=True, avoid=tuple(f"{zone}_zone" for zone in self.task.avoid))

    def update(self, inside: Any) -> None:
        before = self.judge.verdict.current
        verdict = self.judge.update({zone for zone, value in dict(inside).items() if value})
        if verdict.succeeded or verdict.failed:
            self._next()
        elif verdict.current != before:
            self._remember()


class _Record:
    """Grows the arrays of an `Episode`."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {
            name: [] for name in ("observations", "next_observations", "actions", "rewards", "costs", "subgoals")
        }
        self.plans: list[np.ndarray | None] = []
        self.constraints: dict[str, list[float]] = {}

    def add(self, before: Any, after: Any, action: Any, reward: Any, info: dict[str, Any], index: int) -> None:
        values = (before, after, action, reward, info["cost"], index)
        for name, value in zip(self.rows, values, strict=True):
            self.rows[name].append(np.array(value, dtype=np.float32))
        for name, value in info["constraints"].items():
            self.constraints.setdefault(name, []).append(float(value))

    def plan(self, plan: np.ndarray | None) -> None:
        self.plans.append(plan)

    def episode(self, metadata: dict[str, Any], *, terminated: bool) -> Episode:
        length = len(self.plans)
        known = [plan for plan in self.plans if plan is not None]
        plans = None
        if known:
            plans = np.full((length, *known[0].shape), np.nan, dtype=np.float32)
            for step, plan in enumerate(self.plans):
                if plan is not None:
                    plans[step] = plan
        last = np.zeros(length, dtype=bool)
        last[-1] = True
        arrays = {name: np.stack(rows) for name, rows in self.rows.items()}
        arrays["subgoals"] = arrays["subgoals"].astype(np.int32)
        return Episode(
            **arrays,
            terminals=last & terminated,
            timeouts=last & (not terminated),
            constraints={name: np.array(values, dtype=np.float32) for name, values in self.constraints.items()},
            plans=plans,
            metadata=metadata,
        )

"""One episode: a policy sees observations, the judgement comes from the simulator's ground truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.policy import Action, InstructedPolicy, OutcomePolicy, Policy, PrivilegedPolicy, TaskPolicy
from diffdecide.records import EpisodeRecord

if TYPE_CHECKING:
    import gymnasium

    from safety.layout import EnvSpec
    from safety.scene import Scene
    from safety.tasks.spec import TaskSpec, Verdict

STUCK_SPEED = 0.05  # m/s


@dataclass(frozen=True)
class EpisodeTask:
    """What is asked in one episode: the task that judges it, and the sentence that a policy may get instead."""

    task: TaskSpec | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Step:
    """One control step as a recorder sees it, ground truth included."""

    index: int
    observation: np.ndarray  # [O] before the action
    action: Action
    reward: float
    cost: float
    info: Mapping[str, Any]
    scene: Scene | None  # ground truth after the action; None for tasks without objects
    current: int  # index of the current sub-goal, their number when all are done; 0 without a task
    inside: frozenset[str]  # zones that the agent stands in


def rollout(
    env: gymnasium.Env,
    policy: Policy,
    seed: int,
    *,
    spec: EnvSpec,
    episode: EpisodeTask | None = None,
    observe_cost: bool = False,
    max_steps: int | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> EpisodeRecord:
    """Play one episode and judge it.

    The policy gets the observation, and with `observe_cost` the cost of the step before; never `info`. Only an
    `OutcomePolicy` is told rewards. With a task, the episode ends as soon as it has succeeded or failed.

    Args:
        env: from `safety.envs.make`.
        seed: of the environment's layout and of the policy's randomness.
        episode: task and prompt; None for the built-in tasks.
        max_steps: end earlier than the environment does.
        on_step: called after every step, for pictures and progress.

    Raises:
        ValueError: the policy cannot take this task, or its action has the wrong shape or is not finite.
    """
    episode = episode or EpisodeTask()
    observation, _ = env.reset(seed=seed)
    policy.reset(spec, seed=seed)
    details = _prepare(env, policy, episode)
    judge = None
    if episode.task is not None:
        from safety.tasks.spec import TaskJudge

        judge = TaskJudge(episode.task)

    told = policy if isinstance(policy, OutcomePolicy) else None
    tally = _Tally()
    verdict: Verdict | None = None
    cost = 0.0
    limit = spec.max_steps if max_steps is None else min(max_steps, spec.max_steps)
    for index in range(limit):
        started = time.perf_counter()
        action = policy.act(np.array(observation, copy=True), cost if observe_cost else None)
        tally.times["control_ms"].append(1e3 * (time.perf_counter() - started))
        before = observation
        executed = _checked(action, spec, index)
        observation, reward, terminated, truncated, info = env.step(executed)
        cost = float(info["cost"])
        if told is not None:
            told.outcome(executed, float(reward), cost)
        scene, inside = _scene(env), frozenset(_inside(info))
        tally.add(action, float(reward), cost, goal_met=bool(info.get("goal_met", False)))
        if scene is not None:
            tally.watch(_is_stuck(scene, episode.task, 0 if verdict is None else verdict.current))
        if judge is not None:
            verdict = judge.update(set(inside))
        if on_step is not None:
            on_step(Step(index, before, action, float(reward), cost, info, scene, _progress(episode, verdict), inside))
        if terminated or truncated or (verdict is not None and (verdict.succeeded or verdict.failed)):
            break
    if verdict is not None:
        details["reason"] = verdict.reason
    return tally.record(seed, _success(spec, verdict, goal_met=tally.goal_met), details)


@dataclass
class _Tally:
    """Sums of a running episode."""

    returned: float = 0.0
    cost: float = 0.0
    length: int = 0
    interventions: int = 0
    infeasible: int = 0
    goal_met: bool = False
    watched: int = 0
    slow: int = 0
    times: dict[str, list[float]] = field(default_factory=lambda: {"plan_ms": [], "filter_ms": [], "control_ms": []})

    def add(self, action: Action, reward: float, cost: float, *, goal_met: bool) -> None:
        self.returned += reward
        self.cost += cost
        self.length += 1
        self.goal_met |= goal_met
        self.interventions += bool(action.report.get("intervened", False))
        self.infeasible += bool(action.report.get("infeasible", False))
        for name in ("plan_ms", "filter_ms"):
            if action.report.get(name) is not None:
                self.times[name].append(float(action.report[name]))

    def watch(self, stuck: bool) -> None:
        self.watched += 1
        self.slow += stuck

    def record(self, seed: int, success: bool | None, details: Mapping[str, Any]) -> EpisodeRecord:
        means = {name: float(np.mean(values)) if values else None for name, values in self.times.items()}
        return EpisodeRecord(
            seed=seed,
            return_=self.returned,
            cost=self.cost,
            length=self.length,
            success=success,
            interventions=self.interventions,
            infeasible=self.infeasible,
            stuck=self.slow / self.watched if self.watched else None,
            details=details,
            **means,
        )


def _progress(episode: EpisodeTask, verdict: Verdict | None) -> int:
    if verdict is None or episode.task is None:
        return 0
    return len(episode.task.targets) if verdict.succeeded else verdict.current


def _prepare(env: gymnasium.Env, policy: Policy, episode: EpisodeTask) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if isinstance(policy, PrivilegedPolicy):
        policy.bind(env)
    if episode.task is not None:
        details["task"] = episode.task.to_dict()
    if episode.prompt is not None:
        details["prompt"] = episode.prompt
    if episode.prompt is not None and isinstance(policy, InstructedPolicy):
        understood = policy.instruct(episode.prompt)
        details["understood"] = understood.to_dict() if hasattr(understood, "to_dict") else str(understood)
    elif episode.task is not None and isinstance(policy, TaskPolicy):
        policy.assign(episode.task)
    return details


def _checked(action: Action, spec: EnvSpec, step: int) -> np.ndarray:
    value = np.asarray(action.value, dtype=np.float64)
    if value.shape != (spec.action_dim,):
        raise ValueError(f"the policy's action at step {step} has shape {value.shape}, expected ({spec.action_dim},)")
    if not np.isfinite(value).all():
        raise ValueError(f"the policy's action at step {step} is not finite: {value.tolist()}")
    return value


def _scene(env: gymnasium.Env) -> Scene | None:
    from safety import truth

    try:
        return truth.scene(env)
    except ValueError:  # velocity tasks: nothing stands anywhere
        return None


def _inside(info: Mapping[str, Any]) -> set[str]:
    inside = info.get("inside", ())
    return {name for name, value in inside.items() if value} if isinstance(inside, Mapping) else set(inside)


def _is_stuck(scene: Scene, task: TaskSpec | None, current: int) -> bool:
    if float(np.hypot(scene.state[3], scene.state[4])) >= STUCK_SPEED:
        return False
    if task is None:
        targets = scene.of_kind("goal")
    else:
        targets = scene.of_kind(f"{task.targets[min(current, len(task.targets) - 1)]}_zone")
    if not targets.size:
        return True
    distance = np.linalg.norm(scene.positions[targets] - scene.state[:2], axis=1)
    return bool(np.all(distance > scene.radii[targets]))


def _success(spec: EnvSpec, verdict: Verdict | None, *, goal_met: bool) -> bool | None:
    if verdict is not None:
        return verdict.succeeded
    has_goal = spec.layout is not None and "goal_lidar" in spec.layout
    return goal_met if has_goal or goal_met else None

"""One episode: a policy sees observations, the judgement comes from the simulator's ground truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.policy import Action, InstructedPolicy, Policy, PrivilegedPolicy, TaskPolicy
from diffdecide.records import EpisodeRecord

if TYPE_CHECKING:
    import gymnasium
    from safety.tasks.spec import TaskSpec

    from safety.layout import EnvSpec
    from safety.scene import Scene

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
    current: int  # index of the current sub-goal, 0 without a task
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

    The policy gets the observation, and with `observe_cost` the cost of the step before; never `info`. With a task,
    the episode ends as soon as it has succeeded or failed.

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

    total, total_cost, cost = 0.0, 0.0, 0.0
    length = interventions = infeasible = slow = judged = 0
    goal_met = False
    times: dict[str, list[float]] = {"plan_ms": [], "filter_ms": [], "control_ms": []}
    verdict = None
    limit = spec.max_steps if max_steps is None else min(max_steps, spec.max_steps)
    while length < limit:
        seen = np.array(observation, copy=True)
        started = time.perf_counter()
        action = policy.act(seen, cost if observe_cost else None)
        times["control_ms"].append(1e3 * (time.perf_counter() - started))
        value = _checked(action, spec, length)
        before = observation
        observation, reward, terminated, truncated, info = env.step(value)
        length += 1
        cost = float(info["cost"])
        total += float(reward)
        total_cost += cost
        goal_met |= bool(info.get("goal_met", False))
        interventions += bool(action.report.get("intervened", False))
        infeasible += bool(action.report.get("infeasible", False))
        for name in ("plan_ms", "filter_ms"):
            if action.report.get(name) is not None:
                times[name].append(float(action.report[name]))
        scene = _scene(env)
        inside = frozenset(_inside(info))
        current = 0 if verdict is None else verdict.current
        if scene is not None:
            judged += 1
            slow += _is_stuck(scene, episode.task, current)
        if judge is not None:
            verdict = judge.update(set(inside))
        if on_step is not None:
            now = current if verdict is None else verdict.current
            on_step(Step(length - 1, before, action, float(reward), cost, info, scene, now, inside))
        if terminated or truncated or (verdict is not None and (verdict.succeeded or verdict.failed)):
            break
    if verdict is not None:
        details["reason"] = verdict.reason
    return EpisodeRecord(
        seed=seed,
        return_=total,
        cost=total_cost,
        length=length,
        success=_success(spec, judge is not None, verdict, goal_met),
        interventions=interventions,
        infeasible=infeasible,
        stuck=slow / judged if judged else None,
        **{name: float(np.mean(values)) if values else None for name, values in times.items()},
        details=details,
    )


def _prepare(env: gymnasium.Env, policy: Policy, episode: EpisodeTask) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if isinstance(policy, PrivilegedPolicy):
        policy.bind(env)
    if episode.task is not None:
        details["task"] = episode.task.to_json()
    if episode.prompt is not None:
        details["prompt"] = episode.prompt
    if episode.prompt is not None and isinstance(policy, InstructedPolicy):
        understood = policy.instruct(episode.prompt)
        details["understood"] = understood.to_json() if hasattr(understood, "to_json") else str(understood)
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


def _success(spec: EnvSpec, judged: bool, verdict: Any, goal_met: bool) -> bool | None:
    if judged:
        return verdict is not None and bool(verdict.succeeded)
    if goal_met:
        return True
    has_goal = spec.layout is not None and "goal_lidar" in spec.layout
    return False if has_goal else None

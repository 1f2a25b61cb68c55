"""One sentence becomes a rollout: what `diffdecide run` does, without the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.app.agent_policy import AgentPolicy, PolicyConfig
from diffdecide.app.recording import OBSTACLES, Frame, PlanSnapshot, RolloutRecorder, clearances, to_frame_of
from diffdecide.policy import Action
from diffdecide.records import EpisodeRecord, EvaluationResult, provenance
from diffdecide.rollout import EpisodeTask, Step, rollout

if TYPE_CHECKING:
    import gymnasium

    from diffdecide.plan import Plan
    from lm_bridge.bridge import Understanding
    from safety.layout import EnvSpec
    from safety.scene import Scene


class Declined(ValueError):
    """The instruction was not understood with confidence; `understanding` holds what was."""

    def __init__(self, understanding: Understanding) -> None:
        heard = ", ".join(f"{name}: {_plain(value)}" for name, value in understanding.heard.items())
        super().__init__(
            f"declined: {understanding.reason}. "
            + (f"Understood so far: {heard}." if heard else "Nothing was understood.")
        )
        self.understanding = understanding


@dataclass(frozen=True)
class Performance:
    """What `perform` returns: one record per episode and the recording of the first one."""

    understanding: Understanding
    records: tuple[EpisodeRecord, ...]
    recorder: RolloutRecorder

    def summary(self, config: PolicyConfig, *, env_id: str, seed: int) -> dict[str, Any]:
        """What goes into `summary.json`."""
        result = EvaluationResult(self.records, cost_limit=config.agent.cost_limit)
        return {
            "instruction": self.understanding.text,
            "understood": self.understanding.to_dict(),
            "env": env_id,
            "seed": seed,
            "margin": self.recorder.margin,
            "operator_margin": config.agent.margin,
            "cost_limit": config.agent.cost_limit,
            "outcome": self.recorder.outcome,
            "smallest_clearance": min(
                (f.clearance for f in self.recorder.frames if f.clearance is not None), default=None
            ),
            **result.to_json(),
            "files": ["summary.json", "rollout.gif", "plan.png"],
            "meta": provenance(),
        }


class WatchedPolicy:
    """The agent with a recorder beside it, which may look at the ground truth: the agent sees observations only."""

    def __init__(self, policy: AgentPolicy, text: str) -> None:
        self.policy = policy
        self.text = text
        self.recorder: RolloutRecorder | None = None

    def bind(self, env: gymnasium.Env) -> None:
        """Take the environment whose true scene is drawn."""
        self._env = env

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        self.policy.reset(spec, seed=seed)
        self._cost = 0.0
        understanding = self.policy.agent.instruct(self.text)
        task = understanding.spec
        self.recorder = RolloutRecorder(
            instruction=self.text,
            goals=task.targets if task else ("goal",),
            dt=spec.dt,
            margin=self.policy.agent.margin,
            forbidden=tuple(f"{zone}_zone" for zone in task.avoid) if task else (),
            forward_offset=self.policy.agent.planner.dynamics.forward_offset,
        )
        self._plan: Plan | None = None

    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        from safety import truth

        before = truth.scene(self._env)
        action = self.policy.act(observation, cost)
        if action.report["plan"] is not self._plan:
            self._plan = action.report["plan"]
            self._take_plan(self._plan, before, action.report["scene"])
        return action

    def _take_plan(self, plan: Plan, truth_scene: Scene, decoded: Scene) -> None:
        """Note a plan down in the simulator's frame: the agent's is odometric."""
        assert self.recorder is not None
        self._path = to_frame_of(plan.states[:, :2], decoded.state, truth_scene.state)
        self._since = 0
        self.recorder.add_plan(
            PlanSnapshot(
                step=len(self.recorder.frames),
                scene=truth_scene,
                candidates=to_frame_of(plan.candidates, decoded.state, truth_scene.state),
                chosen=self._path,
                times=self.recorder.dt * np.arange(1, len(self._path) + 1),
                obstacles=(*OBSTACLES, *self.recorder.forbidden),
            )
        )

    def on_step(self, step: Step) -> None:
        """Note a step down; for `rollout(on_step=...)`."""
        assert self.recorder is not None
        assert step.scene is not None
        self._since += 1
        self._cost += step.cost
        near = clearances(step.scene.state[:2], step.scene)
        self.recorder.add(
            Frame(
                step=step.index,
                scene=step.scene,
                plan=self._path[self._since :] if self._since < len(self._path) else None,
                intervened=bool(step.action.report.get("intervened", False)),
                clearance=float(near) if np.isfinite(near) else None,
                current=step.current,
                cost=self._cost,
            )
        )


def understand(policy: AgentPolicy, text: str, spec: EnvSpec) -> Understanding:
    """What the agent makes of `text` in the environment.

    Raises:
        Declined: it was not understood with confidence.
        ValueError: it asks for what the environment does not have.
    """
    policy.reset(spec, seed=0)
    understanding = policy.agent.instruct(text)
    if understanding.refused:
        raise Declined(understanding)
    if understanding.is_goal and "goal_lidar" not in (spec.layout or ()):
        raise ValueError(f"{spec.id} has four coloured zones and no goal: name the zones to go to, such as green")
    return understanding


def perform(
    policy: AgentPolicy,
    understanding: Understanding,
    spec: EnvSpec,
    *,
    seed: int,
    episodes: int = 1,
    on_step: Callable[[int, Step], None] | None = None,
) -> Performance:
    """Play `episodes` episodes with the seeds `seed`, `seed + 1`, ...; the first one is recorded.

    The episodes are judged by the task that was understood.

    Args:
        on_step: called with the episode's number and the step, for progress.
    """
    from safety.envs import make

    env = make(spec.id, seed=seed)
    asked = EpisodeTask(understanding.spec)
    first: RolloutRecorder | None = None
    records = []
    try:
        for number in range(episodes):
            watched = WatchedPolicy(policy, understanding.text)

            def watch(step: Step, watched: WatchedPolicy = watched, number: int = number) -> None:
                watched.on_step(step)
                if on_step is not None:
                    on_step(number, step)

            record = rollout(env, watched, seed + number, spec=spec, episode=asked, on_step=watch)
            records.append(record)
            if first is None:
                first = watched.recorder
                assert first is not None
                first.outcome = _outcome(record)
    finally:
        env.close()
    assert first is not None
    return Performance(understanding, tuple(records), first)


def write_performance(performance: Performance, summary: dict[str, Any], folder: Path) -> None:
    """Write summary.json, rollout.gif and plan.png into `folder`."""
    from diffdecide.app.plan_picture import write_plan
    from diffdecide.app.rendering import write_gif
    from diffdecide.files import write_json

    write_gif(performance.recorder, folder / "rollout.gif", max_frames=120)
    write_plan(performance.recorder, folder / "plan.png")
    write_json(folder / "summary.json", summary)


def _outcome(record: EpisodeRecord) -> str:
    if record.success is None:
        return f"return {record.return_:.1f}"
    if "reason" not in record.details:  # the built-in goal tasks begin anew at every goal
        return f"return {record.return_:.1f}, cost {record.cost:g}"
    if record.success:
        return "succeeded"
    return f"failed: {record.details['reason'] or 'not done when the time was up'}"


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "nothing"
    return str(value)

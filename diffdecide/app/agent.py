"""The agent: a sentence and observations in, safe actions out. For people who bring their own loop.

    agent = Agent.from_pretrained("SafetyPointZones1-v0")
    agent.reset(envs.spec("SafetyPointZones1-v0"), seed=0)
    agent.instruct("go to the green zone, then the red one, and keep well clear of the hazards")
    action = agent.act(observation).value

It sees observations only. Progress through the sub-goals comes from the decoded scene; words choose goals and can widen
the filter's margin, never narrow it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.app.embedded import bridge_folder, planner_folder
from diffdecide.app.other_task import OtherTask, for_other_task
from diffdecide.app.rewards import LoadedReward, RewardChoice
from diffdecide.features import SceneEncoder
from diffdecide.plan import Plan
from diffdecide.planner import Planner
from diffdecide.policy import Action
from lm_bridge.goals import GoalSpace
from safety.caution import DEFAULT_MARGIN, margin_for
from safety.constraints import Ball
from safety.costs import Budget
from safety.filters import SafetyFilter
from safety.layout import EnvSpec
from safety.perception import LidarTracker
from safety.scene import Scene, zones_around
from safety.tasks.driving import DrivingView
from safety.tasks.spec import TaskJudge, TaskSpec, Verdict

if TYPE_CHECKING:
    from lm_bridge.bridge import Bridge, Understanding


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """What the operator decides. Nothing that is said to the agent can loosen it."""

    margin: float = DEFAULT_MARGIN  # m that the filter keeps beyond every hazard's radius
    cost_limit: float = 0.0  # cost per episode that may be spent
    filtered: bool = True
    zero_embedding: bool = False  # ablation: the planner is told nothing

    def __post_init__(self) -> None:
        if not (np.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin must be a finite number of metres >= 0, got {self.margin}")
        if not self.cost_limit >= 0:
            raise ValueError(f"cost_limit must be >= 0, got {self.cost_limit}")


class Agent:
    """One agent for one environment at a time: `reset`, `instruct` (or `assign`), then `act` every control step."""

    def __init__(
        self,
        planner: Planner,
        bridge: Bridge | None = None,
        config: AgentConfig | None = None,
        *,
        rewards: Sequence[LoadedReward] = (),
    ) -> None:
        """`rewards` join the planner's own preferences: they choose among plans, filter and limits do not ask them.

        Raises:
            ValueError: the planner was trained for another goal space, or makes one plan only where a reward shall
                choose.
        """
        if rewards and not hasattr(planner, "preferences"):
            raise ValueError("a reward chooses among candidates, and a cloned policy makes one plan only")
        self.rewards = tuple(rewards)
        self._own_preferences = tuple(planner.preferences) if rewards else ()
        self.planner = planner
        self._own_config = planner.config
        self.bridge = bridge
        self.config = config or AgentConfig()
        self.goals = GoalSpace()
        self.goals.check_fingerprint(planner.config.goal_space, "the planner")
        self._spec: EnvSpec | None = None

    @classmethod
    def from_pretrained(
        cls,
        planner: str | Path,
        bridge: str | Path | None = "default",
        *,
        config: AgentConfig | None = None,
        reward: str | Path | None = None,
        reward_weight: float = 0.1,
        **planner_settings: Any,
    ) -> Agent:
        """An agent from a planner and a bridge.

        Args:
            planner: a folder, or an environment id for the embedded planner of that environment.
            bridge: a folder, "default" for the embedded one, None for an agent that is not told in words.
            reward: a folder with a learned reward that chooses among the planner's candidates.
            reward_weight: how strongly, see `diffdecide.preference.Preference`.
            planner_settings: override settings of `PlannerConfig`.

        Raises:
            ValueError: no such planner, bridge or reward, or one that was not trained for the other.
        """
        rewards = () if reward is None else (RewardChoice(folder=str(reward), weight=reward_weight).load(),)
        loaded = Planner.from_pretrained(planner_folder(planner), **planner_settings)
        reader = None
        if bridge is not None:
            from lm_bridge.bridge import Bridge

            reader = Bridge.from_pretrained(bridge_folder(bridge))
        return cls(loaded, reader, config, rewards=rewards)

    def reset(self, spec: EnvSpec, *, seed: int = 0) -> None:
        """Begin an episode in the environment that `spec` describes.

        Raises:
            ValueError: the planner was not trained for this environment's agent and observation, or a reward was
                learned for another environment.
        """
        if self._spec != spec:  # the sensor's errors count too
            self._enter(spec)
        self._tracker.reset()
        if self._other is not None:
            self._other.reset()
        self._encoder.reset()
        self.planner.reset(seed=seed)
        self._set_margin("normal" if "Zones" in spec.id else "rush")
        self._task: TaskSpec | None = None
        self._judge: TaskJudge | None = None
        self._embedding = self.goals.encode_goal()
        self._current = 0
        self._plan: Plan | None = None
        self._used = 0
        self._previous_action = np.zeros(spec.action_dim)
        self._budget = Budget(self.config.cost_limit)

    def _enter(self, spec: EnvSpec) -> None:
        """Get ready for the environment of `spec`; refused, everything stays as it was."""
        other = self._other_task(spec)
        learned = [reward.preference(spec, self.planner) for reward in self.rewards]
        tracker, encoder = LidarTracker(spec), SceneEncoder(spec, self._own_config.features)
        if learned:
            self.planner.preferences = (*self._own_preferences, *learned)
        self.planner.config = self._own_config if other is None else for_other_task(self._own_config)
        self._other, self._tracker, self._encoder, self._spec = other, tracker, encoder, spec

    def _other_task(self, spec: EnvSpec) -> OtherTask | None:
        """How a task that the planner was not trained for is told to it; None for those that it was.

        What costs more than hazards do is never left to the plain filter, whatever the planner was trained for.
        """
        config = self._own_config
        zones = "Zones" in spec.id
        if spec.id in config.environments and (zones or DrivingView(spec).as_is):
            return None
        refusal = f"this planner was trained for {', '.join(config.environments)}, not for {spec.id}"
        if spec.agent != config.agent or zones:
            raise ValueError(refusal)
        try:
            return OtherTask(spec, margin=self.config.margin)
        except ValueError as error:
            raise ValueError(f"{refusal}, and cannot be told what to do there: {error}") from None

    def _set_margin(self, caution: str) -> None:
        """Only through `margin_for`, which never returns less than the operator's margin."""
        self.margin = margin_for(caution, self.config.margin)
        self._filter = SafetyFilter(self.planner.dynamics, margin=self.margin)
        if self._other is not None:
            self._other.set_margin(self.margin)

    def instruct(self, text: str) -> Understanding:
        """Take an instruction in words; a declined one leaves the agent as it was.

        Raises:
            ValueError: the agent has no bridge, or was not reset.
        """
        if self.bridge is None:
            raise ValueError("this agent has no language bridge: load one, or use assign(TaskSpec)")
        understanding = self.bridge.understand(text)
        if not understanding.refused and self._spec is not None:
            reason = self._unfit(understanding.spec)
            if reason:
                understanding = replace(understanding, refused=True, reason=reason, code="impossible")
        if understanding.refused or understanding.embedding is None:
            return understanding
        self._take(understanding.spec, understanding.embedding, understanding.caution)
        return understanding

    def assign(self, task: TaskSpec) -> None:
        """Take a task itself: what language is measured against."""
        self._take(task, self.goals.encode(task), task.caution)

    def _take(self, task: TaskSpec | None, embedding: np.ndarray, caution: str) -> None:
        if self._spec is None:
            raise ValueError("call reset(env_spec) before giving the agent something to do")
        reason = self._unfit(task)
        if reason:
            raise ValueError(reason)
        self._task, self._embedding = task, np.asarray(embedding, dtype=np.float32)
        self._judge = None if task is None else TaskJudge(task)
        self._current = 0
        self._plan = None
        self._set_margin(caution)

    def _unfit(self, task: TaskSpec | None) -> str:
        """Why `task` (None: the built-in goal) cannot be done in this environment; empty if it can."""
        assert self._spec is not None
        zones = "Zones" in self._spec.id
        if task is not None and not zones:
            return f"{self._spec.id} has no coloured zones, which are asked for: {task.to_json()}"
        if task is None and zones:
            return f"{self._spec.id} has no goal besides its zones: name the red, green, blue or yellow one"
        return ""

    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        """The next action for `observation` [O]; `cost` is that of the step before, where it is observed.

        Raises:
            ValueError: the observation has the wrong width or is not finite; the agent was not reset.
        """
        if self._spec is None:
            raise ValueError("call reset(env_spec) before act(observation)")
        started = time.perf_counter()
        perceived = self._perceive(observation)
        if perceived is None:
            return self._blind()
        scene, seen = perceived
        self._follow(scene)
        tokens = self._encoder.encode(seen, self._previous_action)
        looked = time.perf_counter()
        zones = self._forbidden(scene)
        report: dict[str, Any] = {"perception_ms": 1e3 * (looked - started)}
        if self._task is None and "Zones" in self._spec.id:
            report["budget"] = self._spend(scene, cost)
            return self._wait(scene, report)
        if self._plan is None or self._used >= self.planner.config.replan:
            self._plan = self.planner.plan(
                seen,
                tokens,
                self._row(),
                constraints=zones,
                margin=self.margin,
                elapsed=self._used or None,
                budget=self._budget.remaining,
            )
            self._used = 0
            report["plan_ms"] = 1e3 * (time.perf_counter() - looked)
        value = np.asarray(self._plan.actions[self._used], dtype=np.float64)
        self._used += 1
        if self.config.filtered:
            before = time.perf_counter()
            rest = self._plan.actions[self._used - 1 :]
            if self._other is None:
                result = self._filter.filter(scene, value, soft=zones, plan=rest)
            else:
                result = self._other.filter(value, rest)
            value = np.asarray(result.action, dtype=np.float64)
            report |= {
                "filter_ms": 1e3 * (time.perf_counter() - before),
                "intervened": result.intervened,
                "infeasible": result.infeasible,
                "correction": result.delta,
                "clearance": result.clearance,
                "slack": result.slack,
            }
        self._previous_action = np.asarray(self.planner.dynamics.effective(value))
        report["budget"] = self._spend(scene, cost)
        report |= {"current": self._current, "margin": self.margin, "plan": self._plan, "scene": scene}
        return Action(value, report)

    def _perceive(self, observation: np.ndarray) -> tuple[Scene, Scene] | None:
        """The scene, and what the planner is shown of it; None where a guard can make nothing of the observation."""
        if self._other is not None:
            return self._other.see(observation)
        scene = self._tracker.update(observation)
        return scene, scene

    def _blind(self) -> Action:
        """Brake until something can be seen again."""
        assert self._other is not None
        result = self._other.filter(np.zeros(2))
        self._plan = None
        self._previous_action = np.asarray(self.planner.dynamics.effective(result.action))
        report = {"intervened": True, "infeasible": True, "clearance": result.clearance, "blind": True}
        return Action(np.asarray(result.action, dtype=np.float64), report)

    def _wait(self, scene: Scene, report: dict[str, Any]) -> Action:
        """Nobody has asked for anything yet (or the request was declined): brake and stand."""
        dynamics = self.planner.dynamics
        thrust = np.clip(-dynamics.forward_speed(scene.state) / dynamics.gain, -1, 1)
        value = np.asarray(dynamics.command(dynamics.motors(np.float64(thrust), np.float64(0.0))))
        self._previous_action = np.asarray(dynamics.effective(value))
        report |= {"waiting": True, "scene": scene, "margin": self.margin, "current": 0}
        if self.config.filtered:
            # Standing still is the backup of every agent here: there is nothing to filter.
            report |= {"intervened": False, "infeasible": False, "clearance": float("inf")}
        return Action(value, report)

    def _row(self) -> np.ndarray:
        row = self._embedding[min(self._current, len(self._embedding) - 1)]
        return np.zeros_like(row) if self.config.zero_embedding else row

    def _follow(self, scene: Scene) -> None:
        """Progress by what is decoded, never by what the simulator knows."""
        if self._judge is None:
            return
        verdict: Verdict = self._judge.update(zones_around(scene))
        if verdict.current != self._current:
            self._current = verdict.current
            self._plan = None

    def _forbidden(self, scene: Scene) -> list[Ball]:
        if self._task is None or not self._task.avoid:
            return []
        index = scene.of_kind(*(f"{zone}_zone" for zone in self._task.avoid))
        return [Ball(scene.positions[i], float(scene.radii[i]), margin=self.margin, rank="soft") for i in index]

    def _spend(self, scene: Scene, cost: float | None) -> dict[str, Any]:
        """Charge the budget: the cost where it is observed, else whether the decoded scene says that it cost."""
        if self._other is None:
            hazards = scene.of_kind("hazards")
            gaps = np.linalg.norm(scene.positions[hazards] - scene.state[:2], axis=1) - scene.radii[hazards]
            predicted = bool((gaps <= 0).any())
        else:
            predicted = self._other.costs(scene)
        remaining = self._budget.spend(cost, predicted=float(predicted))
        return {"remaining": remaining, "observed": cost is not None}

"""The agent as a policy that `evaluate` can run, in the variants that the tables compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.app.agent import Agent, AgentConfig
from diffdecide.app.embedded import ROOT, bridge_folder, planner_folder
from diffdecide.app.rewards import RewardChoice
from diffdecide.policy import Action

if TYPE_CHECKING:
    from diffdecide.cloning import CloningPlanner
    from diffdecide.planner import Planner
    from lm_bridge.bridge import Bridge
    from safety.layout import EnvSpec
    from safety.tasks.spec import TaskSpec

LANGUAGES = ("none", "bridge", "regex")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Everything that distinguishes one agent policy from another; picklable, so that workers can build it.

    Attributes:
        planner: a folder with a planner or a cloned policy.
        language: who reads prompts: "none" (tasks are assigned as they are), "bridge", "regex".
        bridge: folder of the bridge, or "default".
        agent: what the operator decides.
        settings: overrides of `PlannerConfig`, such as {"proposal": "gaussian"}.
        rewards: learned rewards that choose among the planner's candidates.
    """

    planner: str
    language: str = "none"
    bridge: str = "default"
    agent: AgentConfig = field(default_factory=AgentConfig)
    settings: Mapping[str, Any] = field(default_factory=dict)
    rewards: tuple[RewardChoice, ...] = ()

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, got {self.language!r}")


@dataclass(frozen=True)
class RegexReading:
    """What the parser of key words made of a sentence."""

    text: str
    spec: TaskSpec | None

    @property
    def refused(self) -> bool:
        return self.spec is None

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "spec": None if self.spec is None else self.spec.to_dict(),
            "caution": "normal" if self.spec is None else self.spec.caution,
            "refused": self.refused,
            "code": "no_target" if self.refused else "",
            "reason": "the parser of key words found no target" if self.refused else "",
        }


def load_planner(folder: str | Path, **settings: Any) -> Planner | CloningPlanner:
    """The planner or the cloned policy in `folder`.

    Raises:
        ValueError: neither, or a damaged one, or settings for a cloned policy, which has none.
    """
    from diffdecide.cloning import MARKER, CloningPlanner
    from diffdecide.planner import Planner

    if (Path(folder) / MARKER).is_file():
        if settings:
            raise ValueError(f"{folder} is a cloned policy and has no settings, got {', '.join(sorted(settings))}")
        return CloningPlanner.from_pretrained(folder)
    return Planner.from_pretrained(folder, **settings)


def find_planner(name: str, env_id: str) -> Path:
    """The folder that the command line calls `name`: "default", "bc", an environment id, or a folder.

    Raises:
        ValueError: there is no such model.
    """
    from diffdecide.cloning import MARKER

    if (Path(name) / MARKER).is_file():
        return Path(name)
    if name == "bc":
        return cloned_folder(env_id)
    return planner_folder(name, env_id)


def cloned_folder(env_id: str) -> Path:
    """The embedded cloned policy of the agent in `env_id`; ValueError where there is none."""
    from safety.envs import spec

    folder = ROOT / f"{spec(env_id).agent}_cloning"
    if not folder.is_dir():
        raise ValueError(f"there is no embedded cloned policy for {env_id}: train one with `diffdecide train bc`")
    return folder


class AgentPolicy:
    """The agent, given tasks themselves. `agent` is public for those who want to look inside."""

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        rewards = tuple(choice.load() for choice in config.rewards)
        planner: Any = load_planner(config.planner, **config.settings)
        self.agent = Agent(planner, _bridge(config), config.agent, rewards=rewards)
        self._idle: np.ndarray | None = None

    def reset(self, spec: EnvSpec, *, seed: int) -> None:
        self.agent.reset(spec, seed=seed)
        self._idle = None
        self._size = spec.action_dim

    def assign(self, task: TaskSpec) -> None:
        """Take the task of this episode; called after `reset`."""
        self.agent.assign(task)

    def act(self, observation: np.ndarray, cost: float | None = None) -> Action:
        if self._idle is not None:
            return Action(self._idle, {})
        return self.agent.act(observation, cost)


class InstructedAgentPolicy(AgentPolicy):
    """The agent, told what to do in words. Where it declines, it stays where it is."""

    def instruct(self, text: str) -> Any:
        """Take an instruction; what comes back has `refused` and `to_dict()`."""
        reading: Any
        if self.config.language == "regex":
            from diffdecide.app.regex_parser import parse

            reading = RegexReading(text, parse(text))
            if reading.spec is not None:
                self.agent.assign(reading.spec)
        else:
            reading = self.agent.instruct(text)
        if reading.refused:
            self._idle = np.zeros(self._size)
        return reading


def agent_policy(config: PolicyConfig) -> AgentPolicy:
    """The policy that `config` describes; a function of the module, so that `partial` of it can be pickled."""
    return AgentPolicy(config) if config.language == "none" else InstructedAgentPolicy(config)


def _bridge(config: PolicyConfig) -> Bridge | None:
    if config.language != "bridge":
        return None
    from lm_bridge.bridge import Bridge

    return Bridge.from_pretrained(bridge_folder(config.bridge))

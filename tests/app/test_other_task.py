"""Tasks that the planner was not trained for: told as driving, guarded by their own geometry."""

from dataclasses import replace

import numpy as np
import pytest

from diffdecide.app.agent import Agent, AgentConfig
from diffdecide.app.controllers import ControllerConfig, ControllerPolicy
from diffdecide.app.embedded import OTHER_TASKS, PLANNERS, planner_folder
from diffdecide.app.guarded import GuardedPolicy
from diffdecide.app.other_task import for_other_task
from diffdecide.app.policies import policy_factory
from diffdecide.planner import Planner
from diffdecide.rollout import rollout
from safety import envs

GOAL = "SafetyPointGoal1-v0"
TASKS = ("SafetyPointGoal2-v0", "SafetyPointButton1-v0", "SafetyPointPush1-v0", "SafetyPointCircle1-v0")


class Driver:
    """The agent as a policy."""

    def __init__(self, folder, **config):
        self.agent = Agent.from_pretrained(folder, None, config=AgentConfig(**config))

    def reset(self, spec, *, seed):
        self.agent.reset(spec, seed=seed)

    def act(self, observation, cost=None):
        return self.agent.act(observation, cost)


@pytest.mark.parametrize("env_id", TASKS)
def test_an_untrained_planner_stays_safe_wherever_it_is_put(env_id, small_planner):
    record = rollout(envs.make(env_id), Driver(small_planner), 5001, spec=envs.spec(env_id), max_steps=120)
    assert record.cost == 0


@pytest.mark.parametrize(("env_id", "steps", "least"), [(TASKS[0], 250, 2.0), (TASKS[3], 150, 4.0)])
def test_the_embedded_planner_earns_what_these_tasks_pay(env_id, steps, least):
    assert env_id in OTHER_TASKS
    record = rollout(
        envs.make(env_id), Driver(planner_folder("default", env_id)), 5001, spec=envs.spec(env_id), max_steps=steps
    )
    assert record.cost == 0
    assert record.return_ > least


def test_its_own_tasks_keep_their_settings(small_planner):
    agent = Agent(Planner.from_pretrained(small_planner), None, AgentConfig())
    before = agent.planner.config
    agent.reset(envs.spec(TASKS[0]), seed=0)
    assert agent.planner.config.escapes
    agent.reset(envs.spec(GOAL), seed=0)
    assert agent.planner.config == before


def test_what_cannot_be_told_as_driving_is_refused(small_planner):
    agent = Agent(Planner.from_pretrained(small_planner), None, AgentConfig())
    for env_id in ("SafetyCarGoal2-v0", "SafetySwimmerVelocity-v1", "SafetyCarZones1-v0"):
        with pytest.raises(ValueError, match="was trained for"):
            agent.reset(envs.spec(env_id), seed=0)
    assert not set(OTHER_TASKS) & set(PLANNERS)


def test_it_brakes_while_it_can_make_nothing_of_its_observations(small_planner):
    agent = Agent(Planner.from_pretrained(small_planner), None, AgentConfig())
    agent.reset(envs.spec(TASKS[0]), seed=0)
    action = agent.act(np.full(60, np.nan))
    assert action.report["blind"]
    assert np.abs(action.value).max() < 1e-6
    agent.reset(envs.spec(TASKS[3]), seed=0)
    assert agent.act(np.zeros(28)).report["blind"]  # nobody has seen the circle, so the walls could be anywhere


def test_what_costs_more_than_hazards_is_never_left_to_the_plain_filter(small_planner):
    planner = Planner.from_pretrained(small_planner)
    planner.config = replace(planner.config, environments=(*planner.config.environments, TASKS[0]))
    agent = Agent(planner, None, AgentConfig())
    agent.reset(envs.spec(TASKS[0]), seed=0)
    assert agent._other is not None
    with pytest.raises(ValueError, match="GuardedPolicy"):
        ControllerPolicy(ControllerConfig(filtered=True)).reset(envs.spec("SafetyPointFadingEasy2-v0"), seed=0)
    made = policy_factory("mpc", envs.spec("SafetyPointFadingEasy2-v0"), filtered=True, margin=0.1, cost_limit=0.0)
    assert isinstance(made(), GuardedPolicy)


def test_a_refused_environment_leaves_the_agent_as_it_was(small_planner):
    agent = Agent(Planner.from_pretrained(small_planner), None, AgentConfig())
    agent.reset(envs.spec(GOAL), seed=0)
    with pytest.raises(ValueError, match="was trained for"):
        agent.reset(envs.spec("SafetyCarGoal2-v0"), seed=0)
    assert agent._other is None
    assert agent.planner.config == Planner.from_pretrained(small_planner).config


def test_one_candidate_is_left_alone_and_a_chosen_price_stays():
    config = Planner.from_pretrained(planner_folder(GOAL)).config
    assert for_other_task(replace(config, candidates=1)) == replace(config, candidates=1)
    assert for_other_task(replace(config, stopped_cost=7.0)).stopped_cost == 7.0


def test_the_operators_margin_reaches_the_guard(small_planner):
    agent = Agent(Planner.from_pretrained(small_planner), None, AgentConfig(margin=0.2))
    agent.reset(envs.spec(TASKS[0]), seed=0)
    assert agent._other._guard.filter.margin == pytest.approx(0.2)


def test_a_hazard_or_a_wall_that_is_crossed_is_charged_to_the_budget(small_planner):
    from safety.scene import KIND_ID, Scene

    agent = Agent(Planner.from_pretrained(small_planner), None, AgentConfig())
    agent.reset(envs.spec(TASKS[0]), seed=0)
    inside = Scene(
        state=np.zeros(6), positions=np.array([[0.1, 0.0]]), velocities=np.zeros((1, 2)),
        kinds=np.array([KIND_ID["hazards"]]), radii=np.array([0.2]), sigma=np.zeros(1),
    )  # fmt: skip
    assert agent._other.costs(inside)
    assert not agent._other.costs(Scene(state=np.zeros(6)))

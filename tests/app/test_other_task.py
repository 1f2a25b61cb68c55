"""Tasks that the planner was not trained for: told as driving, guarded by their own geometry."""

import numpy as np
import pytest

from diffdecide.app.agent import Agent, AgentConfig
from diffdecide.app.embedded import OTHER_TASKS, PLANNERS, planner_folder
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


def test_readings_that_are_not_finite_are_named(small_planner):
    agent = Agent(Planner.from_pretrained(small_planner), None, AgentConfig())
    agent.reset(envs.spec(TASKS[0]), seed=0)
    with pytest.raises(ValueError, match="finite observation"):
        agent.act(np.full(60, np.nan))


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

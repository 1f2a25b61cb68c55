"""The agent's life: reset, instruct, act; bad input; what words may and may not do."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffdecide.app.agent import Agent, AgentConfig
from diffdecide.planner import Planner
from safety import envs, truth
from safety.caution import margin_for
from safety.scene import zones_around
from safety.tasks.spec import CAUTIONS, ZONES, TaskSpec

GOAL, POINT = "SafetyPointGoal1-v0", "SafetyPointZones1-v0"


@pytest.fixture(scope="module")
def planner(small_planner):
    return Planner.from_pretrained(small_planner)


@pytest.fixture(scope="module")
def observations():
    """The first observations of an episode of random driving."""
    env = envs.make(POINT, seed=5000)
    observation, _ = env.reset(seed=5000)
    found = [observation]
    generator = np.random.default_rng(0)
    for _ in range(12):
        found.append(env.step(generator.uniform(-1, 1, 2))[0])
    env.close()
    return found


def ready(planner, bridge=None, env_id=POINT, seed=0, **config):
    agent = Agent(planner, bridge, AgentConfig(**config))
    agent.reset(envs.spec(env_id), seed=seed)
    return agent


def test_acts_and_reports_what_a_loop_needs(planner, observations):
    agent = ready(planner)
    agent.assign(TaskSpec("sequence", ("green", "red")))
    first = agent.act(observations[0])
    second = agent.act(observations[1])
    assert first.value.shape == (2,)
    assert np.isfinite(first.value).all()
    needed = {"filter_ms", "intervened", "infeasible", "plan", "scene", "current", "budget", "margin"}
    assert needed <= first.report.keys()
    assert "plan_ms" in first.report
    assert "plan_ms" not in second.report  # the plan is followed until the next one is due
    assert second.report["plan"] is first.report["plan"]


def test_episodes_repeat_by_seed_whatever_went_before(planner, observations):
    def drive(agent, seed):
        agent.reset(envs.spec(POINT), seed=seed)
        agent.assign(TaskSpec("reach", ("blue",)))
        return np.array([agent.act(observation).value for observation in observations])

    agent = Agent(planner)
    first = drive(agent, 3)
    other = drive(agent, 4)
    np.testing.assert_array_equal(drive(agent, 3), first)
    np.testing.assert_array_equal(drive(Agent(planner), 3), first)
    assert not np.array_equal(other, first)


def test_a_reading_that_is_not_finite_is_refused_and_the_episode_goes_on(planner, observations):
    agent = ready(planner)
    agent.act(observations[0])
    broken = observations[1].copy()
    broken[4] = np.nan
    with pytest.raises(ValueError, match=r"nan at index 4 \(sensor velocimeter\)"):
        agent.act(broken)
    assert np.isfinite(agent.act(observations[1]).value).all()


@pytest.mark.parametrize("shape", [(0,), (3,), (60,), (1, 128)])
def test_an_observation_of_another_shape_is_refused(planner, shape):
    with pytest.raises(ValueError, match="expected an observation of shape"):
        ready(planner).act(np.zeros(shape))


def test_an_environment_that_the_planner_was_not_trained_for_is_refused(planner):
    with pytest.raises(ValueError, match="trained for SafetyPointGoal1-v0, SafetyPointZones1-v0, not for SafetyCarG"):
        ready(planner, env_id="SafetyCarGoal1-v0")


def test_order_of_calls_is_explained(planner, observations):
    agent = Agent(planner)
    with pytest.raises(ValueError, match=r"call reset\(env_spec\) before act"):
        agent.act(observations[0])
    with pytest.raises(ValueError, match=r"call reset\(env_spec\) before giving"):
        agent.assign(TaskSpec("reach", ("red",)))
    with pytest.raises(ValueError, match="no language bridge"):
        ready(planner).instruct("go to red")


@pytest.mark.parametrize("name", ["margin", "cost_limit"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_an_operator_cannot_ask_for_nonsense(name, value):
    with pytest.raises(ValueError, match=name):
        AgentConfig(**{name: value})


def test_a_zone_task_needs_zones(planner):
    with pytest.raises(ValueError, match="has no coloured zones"):
        ready(planner, env_id=GOAL).assign(TaskSpec("reach", ("red",)))


def test_strangers_are_refused(planner, tmp_path):
    with pytest.raises(ValueError, match="no planner"):
        Agent.from_pretrained("SafetyPointGaol1-v0", None)
    with pytest.raises(ValueError, match="holds no planner"):
        Agent.from_pretrained(tmp_path, None)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    caution=st.sampled_from(CAUTIONS),
    operator=st.floats(0, 0.3),
    kind=st.sampled_from(["reach", "stay"]),
    zone=st.sampled_from(ZONES),
)
def test_no_task_brings_the_filter_below_the_operators_margin(planner, caution, operator, kind, zone):
    agent = ready(planner, margin=operator)
    agent.assign(TaskSpec(kind, (zone,), (), caution))
    assert agent.margin >= operator
    assert agent.margin == margin_for(caution, operator)
    if caution == "rush":
        assert agent.margin == operator


@pytest.mark.parametrize(
    "text", ["hurry to the red zone, the hazards do not matter", "go to red as fast as you can, ignore all hazards"]
)
def test_words_cannot_loosen_the_margin(planner, bridge, text):
    agent = ready(planner, bridge, margin=0.06)
    agent.instruct(text)
    assert agent.margin >= 0.06


@pytest.mark.parametrize("text", ["", "   ", "go to red, never enter red", "gehe zur roten Zone", "red " * 4000])
def test_what_is_not_understood_changes_nothing(planner, bridge, observations, text):
    def drive(extra):
        agent = ready(planner, bridge)
        agent.assign(TaskSpec("reach", ("yellow",), (), "careful"))
        values = [agent.act(observations[0]).value]
        if extra:
            answer = agent.instruct(text)
            assert answer.refused
            assert answer.reason
        values += [agent.act(observation).value for observation in observations[1:6]]
        return np.array(values)

    np.testing.assert_array_equal(drive(True), drive(False))


def test_an_instruction_is_taken(planner, bridge):
    agent = ready(planner, bridge)
    answer = agent.instruct("go to the green zone, then the red one, and keep well clear of the hazards")
    assert answer.spec == TaskSpec("sequence", ("green", "red"), (), "careful")
    assert agent.margin == margin_for("careful")


def test_the_budget_falls_by_what_was_observed_or_predicted(planner, observations):
    agent = ready(planner, cost_limit=3)
    assert agent.act(observations[0], cost=0.0).report["budget"] == {"remaining": 3.0, "observed": True}
    assert agent.act(observations[1], cost=2.0).report["budget"] == {"remaining": 1.0, "observed": True}
    predicted = agent.act(observations[2]).report["budget"]
    assert predicted["observed"] is False
    assert predicted["remaining"] <= 1.0


def test_the_filter_can_be_left_out_for_comparison(planner, observations):
    report = ready(planner, filtered=False).act(observations[0]).report
    assert "filter_ms" not in report
    assert "intervened" not in report


def test_progress_comes_from_the_decoded_scene(planner):
    """Carried into the first zone of a sequence, the agent turns to the second one after 25 steps."""
    env = envs.make(POINT, seed=5003)
    env.reset(seed=5003)
    scene = truth.scene(env)
    target = scene.positions[scene.of_kind("green_zone")[0]]
    from safety.controllers.mpc import MPCConfig, SamplingMPC
    from safety.controllers.objective import SubGoal
    from safety.dynamics import dynamics_for

    driver = SamplingMPC(dynamics_for("point"), MPCConfig(candidates=60, rounds=1, elites=10, replan=4))
    agent = ready(planner)
    agent.assign(TaskSpec("sequence", ("green", "red")))
    observation, _ = env.reset(seed=5003)
    inside = 0
    for _ in range(400):
        report = agent.act(observation).report
        if report["current"] == 1:
            break
        inside += "green" in zones_around(report["scene"])
        action = driver.act(truth.scene(env), SubGoal(target="green_zone", dwell=True))
        observation, *_ = env.step(np.asarray(action))
    assert report["current"] == 1
    assert inside >= 24
    assert np.linalg.norm(truth.scene(env).state[:2] - target) <= 0.3
    env.close()

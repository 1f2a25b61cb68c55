"""`--reward`: a learned reward chooses among plans; it is checked first, and it never replaces filter and limits."""

import json

import pytest
import torch

from diffdecide.app.agent import Agent
from diffdecide.app.agent_policy import AgentPolicy, PolicyConfig
from diffdecide.app.cli.main import main
from diffdecide.app.embedded import planner_folder
from diffdecide.app.rewards import RewardChoice
from diffdecide.rollout import rollout
from reward_models.config import RewardConfig
from reward_models.model import RewardModel
from reward_models.relative import RelativeConfig, RelativeReward
from safety import envs

GOAL, ZONES = "SafetyPointGoal1-v0", "SafetyPointZones1-v0"


@pytest.fixture(scope="module")
def loves_hazards(tmp_path_factory):
    """A reward model for which nothing is better than being close to a hazard."""
    spec = envs.spec(GOAL)
    model = RewardModel(RewardConfig.for_spec(spec, network="linear", members=1, rings=(), velocity=None))
    ring = spec.layout["hazards_lidar"]
    with torch.no_grad():
        columns = [i for i, place in enumerate(model.inputs.kept.tolist()) if ring.start <= place < ring.stop]
        model.members[0].layer.weight[0, columns] = 1.0
    folder = tmp_path_factory.mktemp("absurd")
    model.save_pretrained(folder)
    return folder


def test_a_reward_that_loves_hazards_costs_nothing_behind_the_filter(loves_hazards):
    spec, env = envs.spec(GOAL), envs.make(GOAL)
    choice = RewardChoice(folder=str(loves_hazards), weight=10.0, guidance=0.3)
    policy = AgentPolicy(
        PolicyConfig(planner=str(planner_folder(GOAL)), settings={"candidates": 8, "steps": 3}, rewards=(choice,))
    )
    close = []
    record = rollout(
        env, policy, 5001, spec=spec, max_steps=200, on_step=lambda s: close.append(min(s.info["constraints"].values()))
    )
    env.close()
    assert record.cost == 0
    assert min(close) > 0
    assert len(policy.agent.planner.preferences) == 1


def evaluate(*words):
    return main(["evaluate", "--env", GOAL, "--episodes", "1", "--seed", "5000", "--max-steps", "5", *map(str, words)])


def test_evaluate_takes_a_reward_and_says_so(small_planner, loves_hazards, tmp_path):
    out = tmp_path / "result.json"
    assert evaluate("--planner", small_planner, "--reward", loves_hazards, "--reward-weight", 0.2, "--out", out) == 0
    assert json.loads(out.read_text())["meta"]["reward"]["weight"] == 0.2


@pytest.mark.parametrize("name", ["mpc", "cloned", "none", "stranger", "weight", "rows"])
def test_a_reward_that_cannot_be_used_is_told_before_anything_runs(
    name, small_planner, small_cloned, loves_hazards, tmp_path, capsys
):
    out, planner, reward, weight, said = tmp_path / "result.json", small_planner, loves_hazards, 0.1, ""
    if name == "mpc":
        planner, said = "mpc", "'mpc' has none"
    elif name == "cloned":
        planner, said = small_cloned, "one plan only"
    elif name == "none":
        reward, said = tmp_path, "no reward model"
    elif name == "stranger":
        reward, said = tmp_path / "car", "cannot judge SafetyPointGoal1-v0"
        RewardModel(RewardConfig.for_spec(envs.spec("SafetyCarGoal1-v0"), members=1, hidden=4)).save_pretrained(reward)
    elif name == "weight":
        weight, said = -1.0, "must be finite"
    else:
        reward, said = tmp_path / "relative", "the planner makes"
        RelativeReward(RelativeConfig(horizon=3, dim=2, rows=(2, 1, 2))).save_pretrained(reward)
    assert evaluate("--planner", planner, "--reward", reward, "--reward-weight", weight, "--out", out) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_run_writes_nothing_with_a_reward_of_another_environment(
    small_planner, loves_hazards, bridge_once, tmp_path, capsys
):
    out = tmp_path / "run"
    words = ["run", "go to the green zone", "--env", ZONES, "--planner", str(small_planner), "--out", str(out)]
    assert main([*words, "--reward", str(loves_hazards)]) == 2
    assert f"trained for {GOAL}, it cannot judge {ZONES}" in capsys.readouterr().err
    assert not out.exists()


def test_the_agent_takes_a_reward_in_python(small_planner, loves_hazards):
    agent = Agent.from_pretrained(small_planner, bridge=None, reward=loves_hazards, reward_weight=0.7)
    assert agent.planner.preferences == ()  # not before the environment is known
    agent.reset(envs.spec(GOAL))
    assert [wish.weight for wish in agent.planner.preferences] == [0.7]
    with pytest.raises(ValueError, match="cannot judge"):
        agent.reset(envs.spec(ZONES))

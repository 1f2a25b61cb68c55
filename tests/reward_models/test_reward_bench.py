"""The reward benchmark: fresh episodes to test on, tables, the task's own reward."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from reward_samples import episode, labelled

from diffdecide.app.bench.reward_epic import task_reward
from diffdecide.app.bench.reward_imitation import fit_imitation, imitation_version
from diffdecide.app.bench.reward_processes import compare_processes
from diffdecide.app.cli.main import main
from diffdecide.data.writers import write_hdf5
from reward_models import judging
from reward_models.batches import PairBatches
from reward_models.config import RewardConfig
from reward_models.model import RewardModel
from safety import envs

ENV = "SafetyPointGoal1-v0"


def wide(path, numbers):
    made = []
    for item in (episode(number, env_id=ENV) for number in numbers):
        observations = np.random.default_rng(item.seed).uniform(size=(len(item), 60)).astype(np.float32)
        made.append(replace(item, observations=observations, next_observations=observations))
    return write_hdf5(path, made)


def test_parts_and_table_on_fresh_episodes(tmp_path, capsys):
    data, fresh = wide(tmp_path / "data.hdf5", range(12)), wide(tmp_path / "fresh.hdf5", range(20, 30))
    out = tmp_path / "rewards.json"
    words = ["bench", "rewards", str(data), "--out", str(out), "--pairs", "60", "--test-pairs", "80", "--steps", "3"]
    words += ["--members", "1", "--curve", "30", "--flips", "0.0", "0.1"]
    assert main([*words, "--test", str(data), "--parts", "headline"]) == 2
    assert "test on other episodes" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, "--test", str(fresh), "--parts", "headline", "noise", "data"]) == 0
    record = json.loads(out.read_text())
    assert record["test"]["seeds"] == [20, 29]
    assert record["data"]["seeds"] == [0, 11]
    assert record["parts"]["headline"]["episodes"]["count"] == 10
    assert [row["trained_on"] for row in record["parts"]["data"]] == record["config"]["curve"]
    assert set(record["made"]) == {"headline", "noise", "data"}
    # No label turned: the same model as that of the headline, not another one.
    assert record["parts"]["noise"][0]["accuracy"] == record["parts"]["headline"]["accuracy"]
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- results:rewards -->\n<!-- /results:rewards -->\nafter\n")
    assert main(["bench", "table", str(out), "--into", str(document)]) == 0
    text = document.read_text()
    assert f"{record['parts']['headline']['accuracy']['mean']:.1%}" in text
    assert "| labels turned |" in text
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert main(["bench", "table", str(other)]) == 2


def test_collapsed_segments_leave_every_difference_as_it_is():
    data = labelled(30, length=7).data
    for length in ("sum", "mean"):
        config = RewardConfig(observation_dim=4, action_dim=2, network="linear", members=2, length=length)
        model = RewardModel(config)
        for member in model.members:
            torch.nn.init.normal_(member.layer.weight, generator=torch.Generator().manual_seed(1))
        whole = PairBatches(data, inputs=model.inputs)
        short = PairBatches(data, inputs=model.inputs, collapse=length)
        rows = range(30)
        assert short.__getitems__(rows)["inputs_1"].shape[1] == 1
        with torch.no_grad():
            one, two = (model.delta(batches.__getitems__(rows))[0] for batches in (whole, short))
        assert torch.allclose(one, two, atol=1e-4)
        assert np.allclose(whole.summed_differences(), short.summed_differences(), atol=1e-4)
    uneven = labelled(30, length=(3, 7)).data
    assert PairBatches(uneven, inputs=model.inputs, collapse="sum").__getitems__(rows)["inputs_1"].shape[1] == 7


def test_the_task_reward_is_that_of_the_environment():
    env, spec = envs.make(ENV), envs.spec(ENV)
    reward = task_reward(spec)
    observation, _ = env.reset(seed=4)
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for _ in range(60):
        action = np.array([0.05, rng.uniform(-0.3, 0.3)])
        ours.append(reward(observation[None].astype(np.float32), action[None])[0])
        observation, value = env.step(action)[:2]
        theirs.append(value)
    env.close()
    assert np.allclose(ours, theirs, atol=4e-3)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95
    assert task_reward(envs.spec("SafetyHalfCheetahVelocity-v1")) is None


def test_two_processes_are_recorded(tmp_path):
    found = compare_processes(labelled(60, count=20, length=5).data, None, steps=5)
    assert found["processes"] == [1, 2]
    assert found["steps"] == 5
    assert found["largest_difference"] <= 1e-5


@pytest.mark.skipif(importlib.util.find_spec("imitation") is None, reason="the library imitation is not installed")
def test_the_reward_trainer_of_imitation_learns_from_our_comparisons():
    score = fit_imitation(labelled(400).data, seed=0, epochs=8)
    test = labelled(300, first=50, seed=1)
    figures = judging.judge_deltas(score(test.data.first) - score(test.data.second), test)
    assert figures["expected_accuracy"] > 0.7


@pytest.mark.skipif(importlib.util.find_spec("imitation") is not None, reason="the library imitation is installed")
def test_a_missing_imitation_says_how_to_install_it(tmp_path, capsys):
    with pytest.raises(ValueError, match="pip install --no-deps imitation"):
        imitation_version()

"""Sequence planners from the command line: train, train the critic again, evaluate, refuse."""

import json
import warnings

import numpy as np
import pytest

from diffdecide.app.cli.main import main
from diffdecide.app.policies import policy_factory
from diffdecide.app.sequence_policy import SequencePolicy, SequencePolicyConfig
from diffdecide.data.episode import Episode
from diffdecide.data.writers import write_hdf5
from safety import envs

GOAL, VELOCITY = "SafetyPointGoal1-v0", "SafetySwimmerVelocity-v1"
QUICK = [
    *("--steps", 3, "--batch-size", 16, "--warmup-steps", 1, "--device", "cpu", "--tracker", "None", "--no-progress"),
]
TINY = ["--denoiser-options", '{"width": 16, "blocks": 1}', "--context-dim", 16]


def run(*words):
    return main([str(word) for word in words])


def record(env_id, folder, *, steps=30, episodes=2):
    """A few steps of random behaviour."""
    env, rng = envs.make(env_id, seed=0), np.random.default_rng(0)
    taken = []
    for seed in range(episodes):
        seen, done, rewards, costs = [env.reset(seed=seed)[0]], [], [], []
        for _ in range(steps):
            done.append(rng.uniform(-1, 1, env.action_space.shape))
            observation, reward, _, _, info = env.step(done[-1])
            seen.append(observation)
            rewards.append(reward)
            costs.append(info["cost"])
        last = np.arange(steps) == steps - 1
        taken.append(
            Episode(seen[:-1], seen[1:], done, rewards, costs, last & False, last, metadata={"env_id": env_id})
        )
    env.close()
    file = folder / "episodes.hdf5"
    write_hdf5(file, taken)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of planners that were trained for a moment, with their data, by environment."""
    result = {}
    for env_id in (GOAL, VELOCITY):
        folder = tmp_path_factory.mktemp("sequence")
        file = record(env_id, folder)
        assert run("train", "sequence", file, "--out", folder / "planner", *QUICK, *TINY) == 0
        result[env_id] = folder / "planner", file
    return result


def test_trains_on_a_file_and_evaluates_the_folder(trained, tmp_path):
    folder, _ = trained[GOAL]
    out = tmp_path / "result.json"
    words = ["evaluate", "--env", GOAL, "--planner", folder, "--episodes", 1, "--seed", 500, "--max-steps", 12]
    assert run(*words, "--out", out) == 0
    (episode,) = json.loads(out.read_text())["episodes"]
    assert episode["length"] == 12
    assert episode["plan_ms"] > 0
    assert episode["filter_ms"] > 0
    assert "fingerprint" in (folder / "README.md").read_text()


def test_training_resumes(trained, capsys):
    folder, file = trained[GOAL]
    assert run("train", "sequence", file, "--out", folder, *QUICK, *TINY, "--resume") == 0
    assert "diffusion: 3 steps" in capsys.readouterr().out


def test_the_critic_is_trained_again_and_the_rest_stays(trained):
    folder, file = trained[GOAL]
    weights = {part: folder / part / "diffusion_pytorch_model.safetensors" for part in ("critic", "diffusion")}
    before = {part: path.read_bytes() for part, path in weights.items()}
    assert run("train", "value", file, "--planner", folder, *QUICK, "--overwrite", "--seed", 5) == 0
    assert weights["critic"].read_bytes() != before["critic"]
    assert weights["diffusion"].read_bytes() == before["diffusion"]


def test_a_task_without_geometry_is_played_without_a_filter_and_says_so(trained):
    folder, _ = trained[VELOCITY]
    spec = envs.spec(VELOCITY)
    with pytest.warns(UserWarning, match="has no safety filter"):
        factory = policy_factory(str(folder), spec, filtered=True, margin=0.03, cost_limit=25.0)
    policy = factory()
    with pytest.warns(UserWarning, match="has no safety filter"):
        policy.reset(spec, seed=0)
    action = policy.act(np.zeros(spec.observation_dim))
    assert action.value.shape == (spec.action_dim,)
    assert action.report["filtered"] is False
    assert action.report["sequence"].states.shape[1] == spec.observation_dim


def test_an_episode_follows_from_its_seed_and_forgets_the_last(trained):
    folder, _ = trained[GOAL]
    spec = envs.spec(GOAL)
    policy = SequencePolicy(SequencePolicyConfig(planner=str(folder), filtered=False))
    rng = np.random.default_rng(0)
    seen = rng.uniform(0, 1, (9, spec.observation_dim))

    def play(seed):
        policy.reset(spec, seed=seed)
        return np.stack([policy.act(observation).value for observation in seen])

    first, other, again = play(1), play(2), play(1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_budget_falls_by_what_is_observed_else_by_what_is_predicted(trained):
    folder, _ = trained[GOAL]
    spec = envs.spec(GOAL)
    policy = SequencePolicy(SequencePolicyConfig(planner=str(folder), filtered=False, cost_limit=5.0))
    policy.reset(spec, seed=0)
    observation = np.full(spec.observation_dim, 0.1)
    assert policy.act(observation).report["budget"]["remaining"] == 5.0
    report = policy.act(observation, 2.0).report["budget"]
    assert (report["remaining"], report["source"]) == (3.0, "observed")
    assert policy.act(observation).report["budget"]["source"] == "mixed"


def test_wrong_pairings_and_damaged_folders_end_with_exit_code_2(trained, tmp_path, capsys):
    folder, file = trained[GOAL]
    evaluate = ["evaluate", "--episodes", 1, "--max-steps", 2]
    assert run(*evaluate, "--env", "SafetyCarGoal1-v0", "--planner", folder) == 2
    assert f"was trained for {GOAL} (observations of 60 values" in capsys.readouterr().err
    assert run("train", "sequence", tmp_path / "none.hdf5", "--out", tmp_path / "out", *QUICK) == 2
    assert "no such data file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run("train", "value", file, "--planner", tmp_path, *QUICK) == 2
    assert "holds no sequence planner" in capsys.readouterr().err
    (tmp_path / "sequence_planner.json").write_text("{")
    assert run(*evaluate, "--env", GOAL, "--planner", tmp_path) == 2
    assert "is not a JSON file" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="cost_limit must be finite"):
            SequencePolicyConfig(planner=str(folder), cost_limit=-1.0)

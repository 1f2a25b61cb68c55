"""The rows of the safe-RL benchmark on small real parts: ours on any task, OSRL, learned filters, SAC data."""

import importlib.util
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffdecide.app.bench import safe_rl
from diffdecide.app.bench.osrl import INSTALL, require_osrl, train_osrl
from diffdecide.app.bench.osrl_policy import osrl_policy
from diffdecide.app.bench.ours import VARIANTS, OursConfig, OursPolicy, train_sequence_within
from diffdecide.app.bench.safe_rl import SafeRLConfig, cells, own_cells, run
from diffdecide.app.bench.safe_rl_methods import METHODS, Cell, UniformPolicy
from diffdecide.app.bench.safe_rl_report import write_report
from diffdecide.app.bench.timing import steps_within
from diffdecide.app.cli.main import main
from diffdecide.app.guarded import GuardedPolicy
from diffdecide.data.episode import Episode
from diffdecide.data.readers import read
from diffdecide.data.writers import write_hdf5
from diffdecide.policy import Action
from diffdecide.rollout import rollout
from safety import envs

GOAL, CIRCLE, SWIMMER = "SafetyPointGoal1-v0", "SafetyPointCircle1-v0", "SafetySwimmerVelocity-v1"

needs_osrl = pytest.mark.skipif(
    importlib.util.find_spec("osrl") is None or importlib.util.find_spec("wandb") is None,
    reason=f"OSRL is not installed: {INSTALL}",
)


def episodes(env_id, *, count=4, steps=60):
    """Random numbers in the shapes of an environment; every other episode costs something."""
    spec, generator = envs.spec(env_id), np.random.default_rng(0)
    made = []
    for index in range(count):
        seen = generator.normal(size=(steps + 1, spec.observation_dim))
        costs = (generator.random(steps) < 0.3 * (index % 2)).astype(float)
        last = np.arange(steps) == steps - 1
        made.append(
            Episode(
                observations=seen[:-1],
                next_observations=seen[1:],
                actions=generator.uniform(-0.1, 0.1, (steps, spec.action_dim)),
                rewards=generator.normal(size=steps) + index,
                costs=costs,
                terminals=np.zeros(steps, dtype=bool),
                timeouts=last,
                constraints={"speed": 0.5 - costs},
                metadata={"env_id": env_id, "seed": index},
            )
        )
    return made


def data_file(folder, env_id):
    return str(write_hdf5(folder / f"{env_id}.hdf5", episodes(env_id)))


def test_shards_share_the_work_and_keep_models_together():
    settings = {"envs": (GOAL, CIRCLE), "training_seeds": (0, 1)}
    whole = cells(SafeRLConfig(**settings))
    parts = [own_cells(SafeRLConfig(**settings, shard=(part, 3))) for part in (1, 2, 3)]
    assert sorted(cell.label for part in parts for cell in part) == sorted(cell.label for cell in whole)
    assert min(len(part) for part in parts) > 0
    homes = {}
    for number, part in enumerate(parts):
        for cell in part:
            if cell.model:
                assert homes.setdefault((cell.env, cell.model), number) == number
    assert own_cells(SafeRLConfig(**settings)) == whole
    learned = SafeRLConfig(envs=(SWIMMER,), training_seeds=(0,))
    parts = [own_cells(replace(learned, shard=(part, 3))) for part in (1, 2, 3)]
    assert sorted(len(part) for part in parts) == [0, 0, len(cells(learned))]  # one learned guard, one machine


def test_what_is_trained_and_what_heeds_the_limit_depends_on_the_task():
    ours = METHODS["ours"]
    assert not ours.is_trained(GOAL)
    assert not ours.is_trained(CIRCLE)
    assert ours.is_trained(SWIMMER)
    assert ours.heeds_limit(SWIMMER)
    assert not METHODS["ours-no-guidance"].heeds_limit(SWIMMER)
    assert Cell(GOAL, "ours-budget", 0, None).model == "planner_seed0"
    assert Cell(CIRCLE, "ours-budget", 0, 10.0).model == "sequence_seed0"
    assert (
        Cell(GOAL, "coptidice", 0, 40.0).model == Cell(GOAL, "coptidice-filter", 0, 40.0).model == "coptidice40_seed0"
    )
    assert Cell(GOAL, "cdt", 0, 40.0).model == Cell(GOAL, "cdt", 0, 10.0).model


def test_a_budget_becomes_steps():
    def busy(steps, folder):
        end = time.process_time() + 0.002 * steps + 0.02  # the constant part must not count
        while time.process_time() < end:
            pass

    assert 60 <= steps_within(0.2, busy) <= 140
    with pytest.raises(ValueError, match="training budget"):
        steps_within(0.0, busy)


@pytest.fixture(scope="module")
def circle_planner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    facts = train_sequence_within(data_file(folder, CIRCLE), CIRCLE, folder / "planner", seed=0, seconds=0.2)
    assert facts["steps"] >= 1
    assert facts["episodes"] == 4
    return str(folder / "planner")


@pytest.mark.parametrize("variant", VARIANTS)
def test_ours_acts_with_every_part_taken_away(variant, circle_planner):
    settings = {"candidates": 4} if variant != "no-ranking" else {}
    policy = OursPolicy(OursConfig(planner=circle_planner, variant=variant, margin=0.03, settings=settings))
    policy.reset(envs.spec(CIRCLE), seed=0)
    reports = [policy.act(np.zeros(28)).report for _ in range(2)]
    plan = reports[0]["sequence"]
    assert "intervened" in reports[0]  # the geometric guard is there
    assert len(plan.candidates) == (1 if variant == "no-ranking" else 4)
    assert (plan.allowed is None) == (variant == "no-guidance")
    assert np.abs(plan.actions).max() <= 1


def test_the_cost_limit_reaches_the_plan_and_must_not_be_negative(circle_planner):
    allowed = []
    for limit in (10.0, 80.0):
        policy = OursPolicy(OursConfig(planner=circle_planner, limit=limit, settings={"candidates": 2}))
        policy.reset(envs.spec(CIRCLE), seed=0)
        allowed.append(policy.act(np.zeros(28)).report["sequence"].allowed)
    assert allowed[1] == pytest.approx(8 * allowed[0])
    with pytest.raises(ValueError, match="cost limit"):
        OursConfig(planner=circle_planner, limit=-1.0)
    with pytest.raises(ValueError, match="one guard"):
        OursConfig(planner=circle_planner, margin=0.1, learned="x")


def test_tasks_without_geometry_get_a_learned_filter_and_say_what_cannot_run(tmp_path):
    config = SafeRLConfig(
        envs=(SWIMMER,), methods=("random-filter", "mpc"), data={SWIMMER: data_file(tmp_path, SWIMMER)},
        limits=(10.0,), training_seeds=(0,), episodes=1, seconds=0.2, max_steps=4,
    )  # fmt: skip
    failed = run(config, tmp_path / "out", told=lambda text: None)
    assert list(failed) == [f"{SWIMMER}/mpc"]
    table = write_report(config, tmp_path / "out")
    assert "not run: this controller drives among things" in table
    assert "filter_seed0" in table  # its training is told
    from diffdecide.app.bench.learned_guard import load_learned_guard

    folder = tmp_path / "out" / SWIMMER / "models" / "filter_seed0"
    guard = load_learned_guard(folder, envs.spec(SWIMMER))
    assert guard.threshold <= 0
    with pytest.raises(ValueError, match="learned filter"):
        load_learned_guard(folder, envs.spec(CIRCLE))


class Listener(UniformPolicy):
    """Remembers what it is told."""

    def reset(self, spec, *, seed):
        super().reset(spec, seed=seed)
        self.told = []

    def outcome(self, action, reward, cost):
        self.told.append((np.array(action), reward, cost))


def test_a_policy_that_asks_for_outcomes_is_told_what_was_executed():
    listener = Listener()
    record = rollout(envs.make(GOAL), GuardedPolicy(listener), 5000, spec=envs.spec(GOAL), max_steps=5)
    assert len(listener.told) == 5
    assert sum(reward for _, reward, _ in listener.told) == pytest.approx(record.return_)


class Mortal(UniformPolicy):
    """Takes its worker process with it."""

    def act(self, observation, cost=None):
        if multiprocessing.parent_process() is not None:
            os._exit(3)
        return super().act(observation, cost)


def test_a_worker_that_dies_costs_its_cell_only(tmp_path, monkeypatch):
    build = safe_rl.build
    monkeypatch.setattr(safe_rl, "build", lambda cell, means: Mortal if cell.method == "mpc" else build(cell, means))
    config = SafeRLConfig(methods=("random", "mpc"), episodes=2, max_steps=2, workers=2, training_seeds=(0,))
    failed = run(config, tmp_path, told=lambda text: None)
    assert "worker process died" in failed[f"{GOAL}/mpc"]
    assert (tmp_path / GOAL / "random.json").exists()
    assert "worker process died" in write_report(config, tmp_path)


def test_data_that_do_not_fit_are_refused_before_any_work(tmp_path, capsys):
    import h5py

    file = data_file(tmp_path, CIRCLE)
    words = ["bench", "safe-rl", "--out", str(tmp_path / "out"), "--methods", "random", "--data"]
    assert main([*words, f"{GOAL}={file}"]) == 2
    assert f"holds episodes of {CIRCLE}" in capsys.readouterr().err
    with h5py.File(file, "a") as opened:
        del opened["costs"]
    assert main([*words, f"{CIRCLE}={file}", "--envs", CIRCLE]) == 2
    assert "missing keys ['costs']" in capsys.readouterr().err
    assert main([*words[:-1], "--limits", "-5"]) == 2
    assert main([*words[:-1], "--shard", "3/2"]) == 2
    assert not (tmp_path / "out" / GOAL).exists()


def test_missing_osrl_names_the_one_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "osrl", None)
    monkeypatch.setitem(sys.modules, "osrl.algorithms", None)
    with pytest.raises(ImportError, match=r"pip install --no-deps -r requirements-osrl\.txt"):
        require_osrl()


@needs_osrl
@pytest.mark.parametrize(("algorithm", "limit"), [("coptidice", 10.0), ("cdt", None)])
def test_methods_of_osrl_are_trained_saved_and_act(algorithm, limit, tmp_path):
    settings = {"seed": 0, "seconds": 0.1, "episode_len": 1000, "cost_limit": limit}
    facts = train_osrl(episodes(GOAL), algorithm, tmp_path, **settings)
    assert facts["steps"] >= 1
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    policy = osrl_policy(str(tmp_path), 10.0)
    policy.reset(envs.spec(GOAL), seed=0)
    for _ in range(12):  # longer than what CDT attends to
        action = policy.act(np.zeros(60))
        assert isinstance(action, Action)
        assert np.abs(action.value).max() <= 0.1 + 1e-6  # the range of the data's actions
        if algorithm == "cdt":
            policy.outcome(action.value, 1.0, 1.0)
    if algorithm == "cdt":
        assert policy.act(np.zeros(60)).report["target_cost"] == pytest.approx(10 - 12)
        best = max(e.total_return for e in episodes(GOAL) if e.total_cost <= 10)
        assert policy.model.target_return(10.0) == pytest.approx(best, rel=1e-5)
    else:
        with pytest.raises(ValueError, match="trained for cost limit"):
            osrl_policy(str(tmp_path), 20.0)
    with pytest.raises(ValueError, match="cost limit"):
        osrl_policy(str(tmp_path), -1.0)
    with pytest.raises(ValueError, match="takes 60 values"):
        policy.reset(envs.spec(CIRCLE), seed=0)
    with pytest.raises(ValueError, match="has one of 60"):
        train_osrl(episodes(GOAL), algorithm, tmp_path, **(settings | {"episode_len": 10}))


def test_sac_writes_its_episodes_with_costs_and_true_rewards(tmp_path):
    pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed")
    from diffdecide.app.bench.sac_data import RecordingEnv

    env_id, out = "SafetyHopperVelocity-v1", tmp_path / "hopper.hdf5"
    words = ["bench", "sac-data", "--env", env_id, "--out", str(out), "--steps", "240", "--learning-starts", "60"]
    assert main([*words, "--batch-size", "16", "--update-every", "20"]) == 0
    made = read(out)
    assert {episode.metadata["penalty"] for episode in made} == {0.0, 1.0}
    assert len({episode.seed for episode in made}) == len(made) > 2
    assert all(episode.constraints for episode in made)
    assert list(tmp_path.iterdir()) == [out]

    kept = []
    env = RecordingEnv(envs.make(env_id), 1000.0, lambda arrays, terminated: kept.append(arrays))
    env.reset(seed=0)
    rewards, ended = [], False
    while not ended:
        _, reward, terminated, truncated, info = env.step(np.ones(3))
        rewards.append(reward + 1000.0 * info["cost"])
        ended = terminated or truncated
    assert kept[0]["rewards"] == pytest.approx(rewards, abs=1e-3)


def test_a_held_action_is_recorded_step_by_step_and_ends_with_the_episode():
    from diffdecide.app.bench.sac_data import HeldActions, RecordingEnv, SACDataConfig

    kept = []
    recording = RecordingEnv(
        envs.make("SafetyHopperVelocity-v1"), 0.0, lambda arrays, terminated: kept.append((arrays, terminated))
    )
    env, generator = HeldActions(recording, 5), np.random.default_rng(0)
    env.reset(seed=0)
    decisions, rewards, ended = [], [], False
    while not ended:
        decisions.append(generator.uniform(-1, 1, 3).astype(np.float32))
        _, reward, terminated, truncated, _ = env.step(decisions[-1])
        rewards.append(reward)
        ended = terminated or truncated
    arrays, terminated = kept[0]
    length = len(arrays["rewards"])
    assert terminated  # a hopper falls soon
    assert len(kept) == 1
    assert 5 * (len(decisions) - 1) < length <= 5 * len(decisions)
    np.testing.assert_array_equal(arrays["actions"], np.repeat(decisions, 5, axis=0)[:length])
    sums = np.add.reduceat(arrays["rewards"], np.arange(0, length, 5))
    assert rewards == pytest.approx(sums, abs=1e-4)
    with pytest.raises(ValueError, match="repeat must be at least 1, got 0"):
        SACDataConfig(env="SafetyHopperVelocity-v1", out=Path("x.hdf5"), repeat=0)

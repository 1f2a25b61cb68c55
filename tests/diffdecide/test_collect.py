"""Collecting repeats by seed, goes on where it stopped, labels what it visits; files of several tasks mix."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffdecide.data.collect import CollectConfig, collect
from diffdecide.data.mixed import MixedWindows
from diffdecide.data.readers import read_hdf5
from diffdecide.data.windows import WindowConfig, WindowDataset
from safety.envs import spec

GOAL, ZONES = "SafetyPointGoal1-v0", "SafetyPointZones1-v0"


@pytest.fixture
def short(monkeypatch):
    """Episodes of 24 steps: what is asked here does not need more."""
    from diffdecide.data import collect as module

    monkeypatch.setattr(module.envs, "spec", lambda env_id: replace(spec(env_id), max_steps=24))


def config(tmp_path, name="a", **settings):
    defaults = {"env": GOAL, "out": tmp_path / f"{name}.hdf5", "episodes": 2, "candidates": 30, "rounds": 1}
    return CollectConfig(**(defaults | settings))


@pytest.mark.usefixtures("short")
def test_an_episode_follows_from_its_seed(tmp_path):
    whole = read_hdf5(collect(config(tmp_path), progress=False))
    first = config(tmp_path, "b", episodes=1)
    collect(first, progress=False)
    again = read_hdf5(collect(replace(first, episodes=2), progress=False))  # extended: the first one is kept
    assert [episode.metadata["seed"] for episode in again] == [0, 1]
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.plans, other.plans)
    assert not np.array_equal(whole[0].actions, whole[1].actions)
    assert whole[0].metadata["skill"] != whole[1].metadata["skill"]


@pytest.mark.usefixtures("short")
def test_labels_are_there_every_few_steps(tmp_path):
    (episode,) = read_hdf5(collect(config(tmp_path, episodes=1, replan=6), progress=False))
    labelled = np.flatnonzero(~np.isnan(episode.plans[:, 0, 0]))
    np.testing.assert_array_equal(labelled, [0, 6, 12, 18])
    assert "env_id" in episode.metadata
    assert episode.constraints


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("behaviour", ["proportional", "random"])
def test_other_behaviours_have_no_labels(tmp_path, behaviour):
    (episode,) = read_hdf5(collect(config(tmp_path, episodes=1, behaviour=behaviour), progress=False))
    assert episode.plans is None
    assert len(episode) == 24


@pytest.mark.usefixtures("short")
def test_zone_episodes_say_what_was_asked(tmp_path):
    (episode,) = read_hdf5(collect(config(tmp_path, env=ZONES, episodes=1), progress=False))
    history = episode.metadata["sub_goals"]
    assert set(np.unique(episode.subgoals)) <= set(range(len(history)))
    assert {"task", "index"} <= history[0].keys()


def test_circles_are_driven_within_the_walls_or_beyond_them_by_the_margin(tmp_path):
    episodes = {}
    for name, margin in (("careful", 0.06), ("reckless", -0.25)):
        steady = {"skill": (1.0, 1.0), "noise": (0.0, 0.0), "margin": (margin, margin), "candidates": 60}
        path = collect(config(tmp_path, name, env="SafetyPointCircle1-v0", episodes=1, **steady), progress=False)
        (episodes[name],) = read_hdf5(path)
    assert episodes["careful"].total_cost == 0
    assert episodes["reckless"].total_cost > 20
    assert min(episode.total_return for episode in episodes.values()) > 30


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("task", ["Goal2", "Button1", "Push1"])
def test_tasks_told_as_driving_are_collected_with_labels(task, tmp_path):
    (episode,) = read_hdf5(collect(config(tmp_path, env=f"SafetyPoint{task}-v0", episodes=1), progress=False))
    assert episode.plans is not None
    assert np.abs(episode.actions).max() <= 1


@pytest.mark.usefixtures("short")
def test_other_settings_do_not_go_into_one_file(tmp_path):
    collect(config(tmp_path, episodes=1), progress=False)
    with pytest.raises(ValueError, match="settings"):
        collect(config(tmp_path, noise=(0.5, 0.5)), progress=False)


@pytest.mark.parametrize(
    "wrong", [{"skill": (0.9, 0.1)}, {"noise": (-1, 0)}, {"margin": (0, 2)}, {"episodes": 0}, {"behaviour": "lazy"}]
)
def test_settings_are_checked(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(tmp_path, **wrong)


def test_a_driver_goes_with_its_behaviour(tmp_path):
    with pytest.raises(ValueError, match="driver"):
        collect(config(tmp_path, behaviour="policy"), progress=False)
    with pytest.raises(ValueError, match="driver"):
        collect(config(tmp_path), driver=object, progress=False)


@pytest.mark.usefixtures("short")
def test_mixed_windows_keep_the_order_that_was_asked_for(tmp_path):
    parts, windows = [], WindowConfig(dense=4, strided=0)
    for number, env_id in enumerate((GOAL, ZONES)):
        made = config(tmp_path, str(number), env=env_id, episodes=1, behaviour="random")
        episodes = read_hdf5(collect(made, progress=False))
        table = [
            {
                "ego": np.full((len(e), 3), number, np.float32),
                "tokens": np.zeros((len(e), 2, 4), np.float32),
                "token_mask": np.ones((len(e), 2), bool),
                "goal": np.arange(len(e), dtype=np.float32)[:, None],
                "target_index": np.zeros(len(e), int),
            }
            for e in episodes
        ]
        parts.append(
            WindowDataset(episodes, windows, features=table, statistics=parts[0].statistics if parts else None)
        )
    mixed = MixedWindows(parts)
    assert len(mixed) == sum(map(len, parts))
    order = [len(mixed) - 1, 0, len(parts[0]), 3]
    batch = mixed.__getitems__(order)
    assert batch["ego"][:, 0].tolist() == [1, 0, 1, 0]
    assert batch["goal"][:, 0].tolist() == [len(parts[1]) - 1, 0, 0, 3]
    for row, index in enumerate(order):
        one = mixed[index]
        for name, value in one.items():
            torch.testing.assert_close(batch[name][row], value)
    with pytest.raises(ValueError, match="at least one"):
        MixedWindows([])

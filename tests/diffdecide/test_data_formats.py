import json

import h5py
import numpy as np
import pytest
from data_samples import arrays, episode
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdecide.data.episode import DataError, fingerprint
from diffdecide.data.readers import HDF5Source, iter_hdf5, read, read_d4rl, read_hdf5, read_minari, read_omnisafe
from diffdecide.data.writers import HDF5Writer, ShardedWriter, write_hdf5, write_minari


def varied(seed: int, length: int, *, kind: int = 7):
    """An episode with those extras whose bit is set in `kind`."""
    extras = {}
    if kind & 1:
        extras["constraints"] = {"hazard0": np.linspace(-1, 1, length), "vase0": np.full(length, np.inf)}
    if kind & 2:
        extras["subgoals"] = np.arange(length) // 2
    if kind & 4:
        plans = np.random.default_rng(seed).uniform(-1, 1, (length, 3, 2))
        plans[1::2], plans[0, 2:] = np.nan, np.nan
        extras["plans"] = plans
    end = "terminal" if seed % 2 else "timeout"
    return episode(length, seed=seed, end=end, metadata={"seed": seed, "env_id": "Test-v0", "k": kind}, **extras)


def write_flat(path, *parts, **extra):
    """A file as others write them: nothing but flat arrays."""
    with h5py.File(path, "w") as file:
        for key in parts[0]:
            file[key] = np.concatenate([part[key] for part in parts])
        for key, value in extra.items():
            file[key] = value
    return path


@settings(max_examples=25, deadline=None)
@given(shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 7)), min_size=1, max_size=5))
def test_hdf5_gives_back_what_was_written(tmp_path_factory, shapes):
    episodes = [varied(seed, length, kind=kind) for seed, (length, kind) in enumerate(shapes)]
    path = write_hdf5(tmp_path_factory.mktemp("data") / "set.hdf5", iter(episodes), settings={"env": "Test-v0"})
    found = read(path)
    assert fingerprint(found) == fingerprint(episodes) == fingerprint(iter_hdf5(path))
    assert [item.metadata for item in found] == [item.metadata for item in episodes]
    with HDF5Source(path) as source:
        assert source.settings == {"env": "Test-v0"}


def test_the_file_is_plain_dsrl_to_others(tmp_path):
    episodes = [varied(0, 4), varied(1, 3, kind=0)]
    path = write_hdf5(tmp_path / "set.hdf5", episodes)
    with h5py.File(path) as file:
        for key in ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts"):
            expected = np.concatenate([getattr(item, key) for item in episodes])
            np.testing.assert_array_equal(file[key][()], expected)
        assert file["terminals"].shape == (7,)
        assert np.isnan(file["constraints/hazard0"][4:]).all()


def test_columns_are_squeezed_and_episodes_split_at_both_flags(tmp_path):
    parts = [arrays(3, end="timeout"), arrays(4, seed=1, end="terminal")]
    columns = [{k: v[:, None] if v.ndim == 1 else v for k, v in part.items()} for part in parts]
    found = read_hdf5(write_flat(tmp_path / "a.hdf5", *columns))
    assert [len(item) for item in found] == [3, 4]
    assert found[1].terminals[-1]
    assert not found[1].timeouts[-1]
    np.testing.assert_array_equal(found[1].rewards, parts[1]["rewards"])


def test_an_open_last_episode_is_kept_or_dropped_with_a_warning(tmp_path):
    path = write_flat(tmp_path / "a.hdf5", arrays(3), arrays(2, seed=1, end="open"))
    with pytest.warns(UserWarning, match="last 2 steps end in neither.*kept"):
        assert [item.is_open for item in read_hdf5(path)] == [False, True]
    with pytest.warns(UserWarning, match="last 2 steps.*dropped"):
        assert len(read_hdf5(path, open_episode="drop")) == 1
    with pytest.raises(ValueError, match="open_episode: expected"):
        read_hdf5(path, open_episode="maybe")
    alone = write_flat(tmp_path / "b.hdf5", arrays(2, end="open"))
    with pytest.warns(UserWarning, match="dropped"), pytest.raises(DataError, match="one open episode"):
        read_hdf5(alone, open_episode="drop")


def test_a_bad_value_is_named_with_file_and_episode(tmp_path):
    bad = arrays(4, seed=1)
    bad["actions"][2, 1] = np.nan
    path = write_flat(tmp_path / "a.hdf5", arrays(3), bad)
    with pytest.raises(
        DataError, match=r"a\.hdf5: episode 1: actions: expected finite values, got nan at index \(2, 1"
    ):
        read(path)


def test_missing_keys_unequal_lengths_and_strange_files_are_refused(tmp_path):
    raw = arrays(3)
    path = write_flat(tmp_path / "a.hdf5", {k: v for k, v in raw.items() if k != "actions"})
    with pytest.raises(DataError, match=r"missing keys \['actions'\]"):
        read(path)
    path = write_flat(tmp_path / "b.hdf5", {k: v for k, v in raw.items() if k != "rewards"}, rewards=np.zeros(2))
    with pytest.raises(DataError, match=r"expected equal lengths.*'rewards': 2"):
        read(path)
    path = write_flat(tmp_path / "c.hdf5", {k: v[:0] for k, v in raw.items()})
    with pytest.raises(DataError, match="at least one step"):
        read(path)
    (tmp_path / "d.hdf5").write_text("not data")
    with pytest.raises(DataError, match="expected HDF5"):
        read(tmp_path / "d.hdf5")
    with pytest.raises(DataError, match="expected an HDF5 file"):
        read_hdf5(tmp_path / "d.hdf5")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "e.hdf5")
    with pytest.raises(DataError, match="expected a Minari data set"):
        read(tmp_path)


def test_costs_are_never_assumed_unless_asked(tmp_path):
    raw = {k: v for k, v in arrays(3).items() if k != "costs"}
    path = write_flat(tmp_path / "a.hdf5", raw)
    with pytest.raises(DataError, match=r"missing keys \['costs'\].*read_d4rl"):
        read(path)
    (found,) = read_d4rl(path)
    assert not found.costs.any()


def test_d4rl_successors_come_from_the_next_step(tmp_path):
    parts = [arrays(4, end="timeout"), arrays(3, seed=1, end="terminal")]
    slim = [{k: v for k, v in part.items() if k not in ("costs", "next_observations")} for part in parts]
    timed, ended = read_d4rl(write_flat(tmp_path / "a.hdf5", *slim))
    assert (len(timed), len(ended)) == (3, 3)  # what follows a time-out is not on record
    np.testing.assert_array_equal(timed.next_observations, parts[0]["observations"][1:])
    assert timed.timeouts.tolist() == [False, False, True]
    np.testing.assert_array_equal(ended.next_observations[:2], parts[1]["observations"][1:])
    assert ended.terminals[-1]


def test_writing_is_atomic(tmp_path):
    path = tmp_path / "set.hdf5"
    write_hdf5(path, [varied(0, 3)])
    before = path.read_bytes()

    def broken():
        yield varied(1, 3)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_hdf5(path, broken())
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["set.hdf5"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (episode(3, width=6), r"episode 1: observations: expected \[T, 5\], got \[T, 6\]"),
        (episode(3, end="open"), r"episode 1: expected a terminal or a time-out.*closed\(\)"),
        (episode(3, plans=np.zeros((3, 9, 2))), r"episode 1: plans: expected \[T, 3, a\]"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(tmp_path, second, message):
    with pytest.raises(DataError, match=message):
        write_hdf5(tmp_path / "set.hdf5", [varied(0, 3), second])
    assert not list(tmp_path.iterdir())


def test_a_writer_without_episodes_or_outside_its_block_says_so(tmp_path):
    with pytest.raises(DataError, match="at least one episode to write"):
        write_hdf5(tmp_path / "set.hdf5", [])
    with pytest.raises(RuntimeError, match="inside a `with` block"):
        HDF5Writer(tmp_path / "set.hdf5").append(episode(2))
    with pytest.raises(ValueError, match="compression"):
        HDF5Writer(tmp_path / "set.hdf5", compression=10)


def test_collection_resumes_where_it_was_killed(tmp_path):
    path, how = tmp_path / "set.hdf5", {"policy": "mpc"}
    episodes = [varied(seed, 3 + seed) for seed in range(5)]
    first = ShardedWriter(path, settings=how)
    assert first.missing(range(5)) == [0, 1, 2, 3, 4]
    first.add([episodes[4], episodes[0]])
    first.add([episodes[2]])
    (first.folder / ".half-written.hdf5.tmp").write_bytes(b"killed")

    second = ShardedWriter(path, settings=how)
    assert second.missing(range(5)) == [1, 3]
    second.merge()
    assert [item.seed for item in read(path)] == [0, 2, 4]

    third = ShardedWriter(path, settings=how)  # the merged file counts as well
    assert third.missing(range(5)) == [1, 3]
    third.add([episodes[1]])
    third.add([episodes[3], episodes[1]])  # a seed that two workers did is taken once
    third.merge()
    assert fingerprint(read(path)) == fingerprint(episodes)
    assert [item.name for item in tmp_path.iterdir()] == ["set.hdf5"]


def test_a_resume_with_other_settings_or_episodes_without_seed_is_refused(tmp_path):
    writer = ShardedWriter(tmp_path / "set.hdf5", settings={"policy": "mpc"})
    with pytest.raises(DataError, match="at least one episode to merge"):
        writer.merge()
    with pytest.raises(DataError, match="expected a 'seed'"):
        writer.add([episode(3, metadata={})])
    writer.add([varied(0, 3)])
    with pytest.raises(DataError, match="was collected with settings"):
        ShardedWriter(tmp_path / "set.hdf5", settings={"policy": "random"})


def test_minari_gives_back_what_was_written(tmp_path):
    episodes = [varied(0, 4), varied(1, 3, kind=0), varied(2, 5, kind=3)]
    path = write_minari(tmp_path / "set", episodes, dataset_id="test/set-v0")
    found = read(path)
    assert fingerprint(found) == fingerprint(episodes)
    assert [item.metadata for item in found] == [item.metadata for item in episodes]
    assert fingerprint(read(path / "data" / "main_data.hdf5")) == fingerprint(episodes)
    with pytest.raises(DataError, match="does not exist yet"):
        write_minari(path, episodes, dataset_id="test/set-v0")
    with pytest.raises(DataError, match="dataset_id: expected"):
        write_minari(tmp_path / "other", episodes, dataset_id="test/set")
    assert [item.name for item in tmp_path.iterdir()] == ["set"]


def test_minari_infos_from_the_reset_on_and_gaps_elsewhere(tmp_path):
    item = varied(0, 4, kind=0)
    path = write_minari(tmp_path / "set", [item], dataset_id="test/set-v0")
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/infos/cost"]
        file["episode_0/infos/cost"] = np.concatenate([[99.0], item.costs])
        file["episode_0/infos/goal_met"] = [np.nan, 1.0, np.nan, np.nan]
    np.testing.assert_array_equal(read_minari(path)[0].costs, item.costs)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/infos/cost"][2] = np.nan
    with pytest.raises(DataError, match=r"test/set-v0: episode 0: costs: expected finite"):
        read_minari(path)
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/infos/cost"]
    with pytest.raises(DataError, match="missing key 'infos/cost'"):
        read_minari(path)


def test_omnisafe_done_is_told_apart_by_length(tmp_path):
    parts = [arrays(5), arrays(3, seed=1), arrays(5, seed=2)]
    names = {"obs": "observations", "action": "actions", "reward": "rewards", "cost": "costs"}
    names["next_obs"] = "next_observations"
    flat = {name: np.concatenate([part[key] for part in parts]) for name, key in names.items()}
    done = np.concatenate([part["timeouts"] for part in parts]).astype(np.float32)
    np.savez(tmp_path / "a.npz", **flat, done=done)
    found = read(tmp_path / "a.npz")
    assert [(bool(item.terminals[-1]), bool(item.timeouts[-1])) for item in found] == [
        (False, True),
        (True, False),
        (False, True),
    ]
    assert all(item.terminals[-1] for item in read_omnisafe(tmp_path / "a.npz", max_steps=10))
    np.savez(tmp_path / "b.npz", **flat)
    with pytest.raises(DataError, match=r"missing keys \['done'\]"):
        read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **flat, done=done[1:])
    with pytest.raises(DataError, match="expected equal lengths"):
        read(tmp_path / "c.npz")


def test_metadata_that_does_not_match_the_episodes_is_refused(tmp_path):
    path = write_flat(tmp_path / "a.hdf5", arrays(3), **{"episodes/metadata": [json.dumps({}), json.dumps({})]})
    with pytest.raises(DataError, match="episodes/metadata: expected 1 entries, got 2"):
        read(path)

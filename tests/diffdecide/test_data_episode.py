import json

import numpy as np
import pytest
from data_samples import arrays, episode

from diffdecide.data.episode import DataError, Episode, fingerprint


def test_lists_and_columns_are_converted():
    raw = arrays(4)
    raw["rewards"] = raw["rewards"][:, None].astype(np.float64)
    raw["timeouts"] = [[0], [0], [0], [1]]
    raw["actions"] = raw["actions"].tolist()
    item = Episode.from_arrays(raw)
    assert item.rewards.shape == item.timeouts.shape == (4,)
    assert item.rewards.dtype == item.actions.dtype == np.float32
    assert item.timeouts.dtype == bool
    assert item.total_return == pytest.approx(float(raw["rewards"].sum()), rel=1e-6)


@pytest.mark.parametrize("key", ["observations", "next_observations", "actions", "rewards", "costs"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_are_refused_with_their_place(key, value):
    raw = arrays(4)
    raw[key][2] = value
    with pytest.raises(DataError, match=rf"episode 9: {key}: expected finite values, got (nan|inf) at index \(2"):
        Episode.from_arrays(raw, where="episode 9")


def test_a_float64_value_too_large_for_float32_is_refused():
    with pytest.raises(DataError, match="rewards: expected finite"):
        Episode.from_arrays(arrays(2) | {"rewards": np.array([0.0, 1e300])})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rewards", np.zeros(3), "rewards: expected length 4 as observations, got 3"),
        ("timeouts", np.zeros(5, bool), "timeouts: expected length 4"),
        ("actions", np.zeros(4), r"actions: expected \[T, n\], got shape \(4,\)"),
        ("costs", np.zeros((4, 2)), r"costs: expected \[T\], got shape \(4, 2\)"),
        ("costs", -np.ones(4), "costs: expected values >= 0, got -1.0"),
        ("next_observations", np.zeros((4, 6)), r"next_observations: expected shape \(4, 5\)"),
        ("terminals", np.array([0, 1, 0, 0]), "terminals: expected True at the last step only, got True at step 1"),
        ("terminals", np.array([0, 0, 0, 0.5]), "terminals: expected booleans"),
        ("observations", "words", "observations: expected numbers"),
    ],
)
def test_bad_arrays_are_named(key, value, message):
    with pytest.raises(DataError, match=message):
        Episode.from_arrays(arrays(4) | {key: value})


def test_missing_keys_are_listed():
    raw = arrays(4)
    del raw["costs"], raw["timeouts"]
    with pytest.raises(DataError, match=r"missing keys \['costs', 'timeouts'\]"):
        Episode.from_arrays(raw)


def test_an_empty_episode_is_refused():
    with pytest.raises(DataError, match="at least one step"):
        Episode.from_arrays({key: value[:0] for key, value in arrays(4).items()})


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ({"constraints": {"hazard0": np.zeros(3)}}, r"constraints\['hazard0'\]: expected length 4"),
        ({"constraints": {"hazard0": [0, np.nan, 0, 0]}}, r"constraints\['hazard0'\]: expected finite"),
        ({"subgoals": np.zeros(4)}, "subgoals: expected integers"),
        ({"subgoals": np.array([0, -1, 0, 0])}, "subgoals: expected indices >= 0"),
        ({"plans": np.zeros((4, 3, 1))}, r"plans: expected \[T, P, 2\]"),
        ({"plans": np.full((4, 3, 2), np.inf)}, "plans: expected finite"),
        ({"plans": np.array([[[0.0, np.nan]]] * 4)}, "partly-NaN action at step 0, row 0"),
        ({"metadata": {"policy": object()}}, "metadata: expected JSON values"),
    ],
)
def test_bad_extras_are_named(extras, message):
    with pytest.raises(DataError, match=message):
        episode(4, **extras)


def test_an_absent_obstacle_may_be_infinitely_far():
    assert np.isposinf(episode(2, constraints={"vase0": [1.0, np.inf]}).constraints["vase0"][1])


def test_metadata_is_plain_json():
    item = episode(2, metadata={"seed": np.int64(3), "knobs": {"noise": np.float32(0.5), "a": np.arange(2)}})
    assert json.loads(json.dumps(item.metadata)) == {"seed": 3, "knobs": {"noise": 0.5, "a": [0, 1]}}
    assert item.seed == 3


def test_closing_an_open_episode_sets_a_time_out_in_a_copy():
    item = episode(3, end="open")
    assert item.is_open
    closed = item.closed()
    assert not closed.is_open
    assert closed.timeouts.tolist() == [False, False, True]
    assert not item.timeouts.any()
    assert closed.closed() is closed


def test_the_fingerprint_sees_values_and_order_and_not_timings():
    first, second = episode(3, seed=1), episode(3, seed=2)
    base = fingerprint([first, second])
    assert base == fingerprint(iter([episode(3, seed=1), episode(3, seed=2)]))
    assert base != fingerprint([second, first])
    assert base != fingerprint([first])
    timed = episode(3, seed=1, metadata={"seed": 1, "env_id": "Test-v0", "seconds": 3.2})
    assert fingerprint([timed]) == fingerprint([first])
    assert fingerprint([episode(3, seed=1, subgoals=np.zeros(3, int))]) != fingerprint([first])

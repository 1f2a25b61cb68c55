import json

import numpy as np
import pytest
import torch
from data_samples import arrays, episode, features
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from diffdecide.data.ego_motion import poses, relative
from diffdecide.data.episode import DataError, Episode
from diffdecide.data.mixed import MixedWindows
from diffdecide.data.returns import to_go
from diffdecide.data.windows import WindowConfig, WindowDataset, WindowStatistics, resample

LAYOUT = {"velocimeter": slice(0, 3), "gyro": slice(3, 6)}


def slow_window(actions, start, config):
    """Rows and mask of one window, by the definition."""
    rows, mask, position = [], [], start
    for steps in [1] * config.dense + [config.stride] * config.strided:
        part = actions[position : position + steps]
        rows.append(part.mean(0) if len(part) else np.zeros(actions.shape[1]))
        mask.append(len(part) > 0)
        position += steps
    return np.array(rows), np.array(mask)


CONFIGS = st.builds(
    WindowConfig,
    dense=st.integers(1, 4),
    strided=st.integers(0, 3),
    stride=st.integers(1, 4),
    start_every=st.integers(1, 3),
)


@settings(max_examples=40, deadline=None)
@given(config=CONFIGS, lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_windows_are_the_definition_and_never_cross_episodes(config, lengths):
    episodes = [episode(length, seed=seed) for seed, length in enumerate(lengths)]
    dataset = WindowDataset(episodes, config, features=features)
    starts = [(item, t) for item in episodes for t in range(0, len(item), config.start_every)]
    assert len(dataset) == len(starts)
    batch = dataset.__getitems__(range(len(dataset)))
    found = dataset.statistics.trajectory.denormalize(batch["trajectory"]).numpy()
    assert found.shape[1] == config.rows
    for number, (item, start) in enumerate(starts):
        rows, mask = slow_window(item.actions, start, config)
        np.testing.assert_array_equal(batch["mask"][number], mask)
        np.testing.assert_allclose(found[number][mask], rows[mask], atol=1e-5)
        assert batch["ego"][number].tolist() == [item.observations[start, 0], start]
    assert (batch["trajectory"][~batch["mask"]] == 0).all()
    assert batch["trajectory"].abs().max() <= 1 + 1e-5


def test_a_batch_is_what_the_networks_expect():
    dataset = WindowDataset([episode(30)], WindowConfig(), features=features)
    batch = dataset.__getitems__([0, 5])
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "trajectory": ((2, 14, 2), torch.float32),
        "mask": ((2, 14), torch.bool),
        "ego": ((2, 2), torch.float32),
        "tokens": ((2, 3, 4), torch.float32),
        "token_mask": ((2, 3), torch.bool),
        "goal": ((2, 4), torch.float32),
        "target_index": ((2,), torch.int64),
        "return_to_go": ((2,), torch.float32),
        "cost_budget": ((2,), torch.float32),
    }
    single = dataset[5]
    for name, value in batch.items():
        torch.testing.assert_close(single[name], value[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_gets_whole_batches(workers):
    dataset = WindowDataset([episode(9), episode(6, seed=1)], WindowConfig(dense=2, strided=0), features=features)
    loader = DataLoader(dataset, batch_size=4, collate_fn=WindowDataset.collate, num_workers=workers)
    seen = torch.cat([batch["ego"] for batch in loader])
    torch.testing.assert_close(seen, dataset.__getitems__(range(15))["ego"])
    stacked = WindowDataset.collate([dataset[0], dataset[1]])
    torch.testing.assert_close(stacked["goal"], dataset.__getitems__([0, 1])["goal"])


def test_resample_ignores_what_is_not_valid():
    config = WindowConfig(dense=1, strided=2, stride=2)
    actions = torch.tensor([[[1.0], [2.0], [4.0], [6.0], [float("nan")]]])
    rows, mask = resample(actions, torch.tensor([[True, True, True, True, False]]), config)
    assert rows[0, :, 0].tolist() == [1.0, 3.0, 6.0]
    assert mask.all()
    with pytest.raises(ValueError, match=r"expected \[B, 5, a\]"):
        resample(actions[:, :4], torch.ones(1, 4, dtype=torch.bool), config)


def labelled_episode():
    """Executed actions are 0; at steps 2 and 4 an expert says 1 for three steps, at step 4 for two."""
    plans = np.full((10, 3, 2), np.nan)
    plans[2] = plans[4, :2] = 1.0
    return Episode.from_arrays(arrays(10) | {"actions": np.zeros((10, 2))}, plans=plans)


def test_labels_take_the_place_of_executed_actions():
    config = WindowConfig(dense=2, strided=1, stride=2)
    dataset = WindowDataset([labelled_episode()], config, features=features)
    assert len(dataset) == dataset.labelled == 2
    batch = dataset.__getitems__([0, 1])
    rows, mask = dataset.raw_trajectories(torch.arange(2))
    assert batch["ego"][:, 1].tolist() == [2, 4]
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    assert (rows[mask] == 1).all()  # nothing executed is mixed in behind the label


def test_labels_may_be_preferred_or_ignored():
    plain = episode(4, seed=1)
    both = WindowDataset([labelled_episode(), plain], WindowConfig(labels="prefer", dense=1), features=features)
    rows, _ = both.raw_trajectories(torch.arange(len(both)))
    assert len(both) == 14
    assert rows[:10, 0, 0].tolist() == [0, 0, 1, 0, 1, 0, 0, 0, 0, 0]
    without = WindowDataset([labelled_episode()], WindowConfig(labels="ignore"), features=features)
    assert (len(without), without.labelled) == (10, 0)
    only = WindowDataset([labelled_episode(), plain], WindowConfig(), features=features)
    assert len(only) == 2 + 4  # an episode without labels keeps all its windows
    with pytest.raises(DataError, match="labels='ignore'"):
        WindowDataset([labelled_episode()], WindowConfig(mode="states+actions"), features=features)


def test_conditioning_is_what_the_episode_got():
    episodes = [episode(20), episode(15, seed=1, end="terminal")]
    config = WindowConfig(discount=0.9, horizon=12)
    dataset = WindowDataset(episodes, config, features=features)
    batch = dataset.__getitems__(range(35))
    sums = [to_go(item, discount=0.9, horizon=12) for item in episodes]
    for key, name in (("return_to_go", "return_to_go"), ("cost_budget", "cost_to_go")):
        found = getattr(dataset.statistics, key).denormalize(batch[key][:, None])[:, 0]
        np.testing.assert_allclose(found, np.concatenate([getattr(part, name) for part in sums]), atol=1e-4)
    assert abs(batch["return_to_go"].mean()) < 1e-4
    to_the_end = WindowDataset(episodes, WindowConfig(conditioning="end"), features=features)
    first = to_the_end.__getitems__([0])["return_to_go"]
    value = to_the_end.statistics.return_to_go.denormalize(first[:, None]).item()
    assert value == pytest.approx(episodes[0].total_return, abs=1e-4)


def test_labelled_windows_may_be_conditioned_on_the_best():
    episodes = [episode(40, seed=3), labelled_episode()]
    config = WindowConfig(label_quantile=1.0)
    dataset = WindowDataset(episodes, config, features=features)
    batch = dataset.__getitems__(range(len(dataset)))
    assert dataset.labelled == 2
    returns = dataset.statistics.return_to_go.denormalize(batch["return_to_go"][:, None])[:, 0]
    usual = (dataset._label_of < 0).numpy()
    assert returns[-1] == returns[-2]
    assert returns[-1] == pytest.approx(dataset.return_to_go[usual].max(), rel=1e-5)
    assert batch["cost_budget"][-1] <= batch["cost_budget"].min() + 1e-6


def test_states_are_poses_reached_in_the_frame_of_the_first_step():
    item = episode(12, width=6)
    config = WindowConfig(dense=2, strided=2, stride=3, mode="states+actions")
    dataset = WindowDataset([item], config, features=features, layout=LAYOUT, dt=0.1)
    rows, mask = dataset.raw_trajectories(torch.tensor([1, 9]))
    assert dataset.has_poses
    assert (dataset.state_dim, dataset.trajectory_dim, rows.shape[2]) == (4, 6, 6)
    track = poses(item, LAYOUT, 0.1)
    for row, behind in enumerate([2, 3, 6, 9]):  # a state is the one behind the last action of its row
        np.testing.assert_allclose(rows[0, row, :4], relative(track[behind], track[1]), atol=1e-5)
    assert mask[1].tolist() == [True, True, True, False]
    np.testing.assert_allclose(rows[1, 2, :4], relative(track[12], track[9]), atol=1e-5)
    with pytest.raises(ValueError, match="dt: expected seconds"):
        WindowDataset([item], config, features=features, layout=LAYOUT)


def test_without_geometry_the_states_are_observations():
    item = episode(8)
    config = WindowConfig(dense=3, strided=0, mode="states+actions")
    dataset = WindowDataset([item], config, features=features)
    rows, _ = dataset.raw_trajectories(torch.tensor([2]))
    assert not dataset.has_poses
    np.testing.assert_array_equal(rows[0, :, :5], item.next_observations[2:5])
    np.testing.assert_array_equal(rows[0, :, 5:], item.actions[2:5])


def test_statistics_travel_with_a_model_and_are_used_as_they_are():
    config = WindowConfig(dense=2)
    trained = WindowDataset([episode(30)], config, features=features).statistics
    again = WindowStatistics.from_dict(json.loads(json.dumps(trained.to_dict())))
    loaded = WindowStatistics(2)
    loaded.load_state_dict(trained.state_dict())
    other = [episode(20, seed=5)]
    expected = WindowDataset(other, config, features=features, statistics=trained).__getitems__([3])
    for statistics in (again, loaded):
        found = WindowDataset(other, config, features=features, statistics=statistics).__getitems__([3])
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])
    with pytest.raises(DataError, match="statistics: expected trajectories of 2 dimensions, got 3"):
        WindowDataset(other, config, features=features, statistics=WindowStatistics(3))
    with pytest.raises(ValueError, match="missing keys"):
        WindowStatistics.from_dict({"trajectory": trained.trajectory.to_dict()})


def test_features_may_be_half_precision_and_may_hold_more():
    def half(item):
        return features(item) | {"tokens": features(item)["tokens"].astype(np.float16), "history": np.ones((7, 2, 3))}

    batch = WindowDataset([episode(7)], WindowConfig(), features=half).__getitems__([0])
    assert batch["tokens"].dtype == batch["history"].dtype == torch.float32
    assert batch["history"].shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ego": None}, r"episode 1: missing keys \['ego'\]"),
        ({"ego": np.zeros((6, 2))}, r"episode 1: ego: expected shape \(7, 2\), got \(6, 2\)"),
        ({"tokens": np.zeros((7, 4, 4))}, r"episode 1: tokens: expected shape \(7, 3, 4\)"),
        ({"goal": np.full((7, 4), np.nan)}, "episode 1: goal: expected finite"),
        ({"target_index": np.full(7, 3)}, "episode 1: target_index: expected -1 to 2, got 3"),
        ({"more": np.zeros(7)}, "episode 1: expected keys"),
    ],
)
def test_bad_features_are_named(change, message):
    good = features(episode(7))
    bad = {name: value for name, value in (good | change).items() if value is not None}
    with pytest.raises(DataError, match=message):
        WindowDataset([episode(7), episode(7)], WindowConfig(), features=[good, bad])


def test_bad_data_sets_are_refused():
    with pytest.raises(DataError, match="at least one, got none"):
        WindowDataset([], WindowConfig(), features=features)
    with pytest.raises(DataError, match="one mapping for each of 1"):
        WindowDataset([episode(3)], WindowConfig(), features=[])
    with pytest.raises(DataError, match=r"observations: expected the same width.*\[5, 6\]"):
        WindowDataset([episode(3), episode(3, width=6)], WindowConfig(), features=features)
    with pytest.raises(IndexError, match="window"):
        WindowDataset([episode(3)], WindowConfig(), features=features)[3]


@pytest.mark.parametrize(
    "change",
    [
        {"dense": 0},
        {"strided": -1},
        {"stride": 0},
        {"start_every": 0},
        {"mode": "states"},
        {"labels": "maybe"},
        {"conditioning": "all"},
        {"label_quantile": 2.0},
        {"discount": 1.5},
        {"horizon": 0},
    ],
)
def test_bad_configs_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        WindowConfig(**change)


def test_held_out_windows_are_of_whole_episodes():
    lengths = (5, 7, 4, 6)
    parts = [WindowDataset([episode(n, seed=n) for n in lengths], WindowConfig(), features=features) for _ in range(2)]
    kept, held = MixedWindows(parts).split(0.25)
    assert kept.indices == [*range(16), *range(22, 38)]
    assert held.indices == [*range(16, 22), *range(38, 44)]
    assert len(held.__getitems__([0, 11])["mask"]) == 2
    with pytest.raises(DataError, match="at least two episodes"):
        MixedWindows([WindowDataset([episode(5)], WindowConfig(), features=features)]).split(0.1)

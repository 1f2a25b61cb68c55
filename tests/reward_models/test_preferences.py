"""Preference data: schema, files, splits, doubles, teachers, bad input."""

import math

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from reward_samples import episodes, labelled

from reward_models.pairs import cut, label_episodes
from reward_models.preference_files import (
    MappedPreferences,
    read_preferences,
    stream_preferences,
    to_table,
    write_preferences,
)
from reward_models.preferences import PreferenceError, Preferences, doubles
from reward_models.segments import Segments
from reward_models.splits import split
from reward_models.teachers import SCORES, Teacher, bayes_rate


def tiny(labels=(1.0, 0.0, 0.5), **extras):
    lengths = [3, 1, 2]
    rng = np.random.default_rng(0)
    sides = [
        Segments.of(
            [rng.normal(size=(n, 4)).astype(np.float32) for n in lengths],
            [rng.normal(size=(n, 2)).astype(np.float32) for n in lengths],
        )
        for _ in range(2)
    ]
    return Preferences(sides[0], sides[1], np.array(labels), **extras)


def same(one, two):
    return one.fingerprint() == two.fingerprint()


def test_a_file_gives_back_what_was_written(tmp_path):
    data = tiny(margin=np.ones(3), cost_1=np.zeros(3), cost_2=np.ones(3), prompt=np.array(["a", "b", ""], dtype=object))
    path = write_preferences(data, tmp_path / "data.parquet")
    again = read_preferences(path)
    assert same(data, again)
    assert again.prompt.tolist() == ["a", "b", ""]
    assert np.array_equal(again.cost_2, np.ones(3))
    assert again.annotator is None
    assert same(read_preferences(tmp_path), data)
    assert [file.name for file in tmp_path.iterdir()] == ["data.parquet"]


def test_hugging_face_datasets_reads_the_file(tmp_path):
    import datasets

    path = write_preferences(tiny(), tmp_path / "data.parquet")
    table = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert np.asarray(table[0]["obs_1"]).shape == (3, 4)


def test_streams_and_mapped_files_hold_the_same(tmp_path):
    data = labelled(50).data
    path = write_preferences(data, tmp_path / "data.parquet")
    parts = list(stream_preferences(path, rows=20))
    assert [len(part) for part in parts] == [20, 20, 10]
    assert np.array_equal(np.concatenate([part.label for part in parts]), data.label)
    mapped = MappedPreferences(path, cache=str(tmp_path / "cache"))
    assert len(mapped) == 50
    assert same(mapped.take([7, 3]), data.take([7, 3]))


def test_padding_and_selection_keep_segments_apart():
    data = tiny()
    observations, actions, mask = data.first.padded(np.array([1, 0]))
    assert observations.shape == (2, 3, 4)
    assert actions.shape == (2, 3, 2)
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    assert not observations[0, 1:].any()
    assert np.array_equal(observations[1], data.first.segment(0)[0])
    assert np.array_equal(data.take([2, 1]).first.segment(1)[1], data.first.segment(1)[1])
    with pytest.raises(ValueError, match="at most 2"):
        data.first.padded(length=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": (1.0, 1.5, 0.0)}, r"label: .*1\.5 in row 1"),
        ({"labels": (1.0, float("nan"), 0.0)}, "label: .* in row 1"),
        ({"margin": np.array([1.0, -1.0, -2.0])}, "margin: .*rows 1, 2"),
        ({"cost_1": np.ones(3)}, "both or none"),
        ({"prompt": np.array(["a"], dtype=object)}, "prompt: expected 3 rows"),
    ],
)
def test_bad_columns_are_named_with_their_rows(change, message):
    with pytest.raises(PreferenceError, match=message):
        tiny(**change)


def test_nan_and_unequal_widths_are_named():
    data = tiny()
    observations = data.second.observations.copy()
    observations[3, 0] = np.nan  # the only step of row 1
    with pytest.raises(PreferenceError, match=r"obs_2: .*row 1"):
        Preferences(data.first, Segments(observations, data.second.actions, data.second.offsets), data.label)
    narrow = Segments(data.second.observations[:, :3], data.second.actions, data.second.offsets)
    with pytest.raises(PreferenceError, match=r"obs_1 is 4 wide and obs_2 is 3 wide"):
        Preferences(data.first, narrow, data.label)


def test_a_misnamed_column_brings_the_nearest_name(tmp_path):
    table = to_table(tiny()).rename_columns(["obs_1", "act_1", "obs2", "act_2", "label"])
    parquet.write_table(table, tmp_path / "data.parquet")
    with pytest.raises(PreferenceError, match=r"'obs_2'; did you mean 'obs2'"):
        read_preferences(tmp_path / "data.parquet")


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_preferences(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(PreferenceError, match="Parquet"):
        read_preferences(tmp_path / "text.parquet")
    table = to_table(tiny())
    parquet.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(PreferenceError, match="at least one"):
        read_preferences(tmp_path / "empty.parquet")
    odd = pyarrow.array([[[1.0, 2.0]], [[1.0]], [[1.0, 2.0]]])
    parquet.write_table(table.set_column(0, "obs_1", odd), tmp_path / "odd.parquet")
    with pytest.raises(PreferenceError, match=r"obs_1: expected one width.*row 1"):
        read_preferences(tmp_path / "odd.parquet")


def test_splits_share_no_trajectory():
    made = labelled(300, count=20)
    sides = split(made.data, share=0.3, rng=np.random.default_rng(1))
    train, held_out = (set(side.trajectory_1) | set(side.trajectory_2) for side in (sides.train, sides.held_out))
    assert not train & held_out
    assert len(sides.train) + len(sides.held_out) + sides.dropped == 300
    assert sides.dropped > 0
    with pytest.raises(PreferenceError, match="side is empty"):
        split(made.data.take([0]), share=0.3, rng=np.random.default_rng(1))


def test_doubles_are_found_whatever_the_order():
    data = labelled(5).data
    turned = Preferences(data.second, data.first, 1 - data.label)
    many = Segments.of
    rows = [data.first.segment(i) for i in range(5)] + [turned.first.segment(0), data.first.segment(1)]
    others = [data.second.segment(i) for i in range(5)] + [turned.second.segment(0), data.second.segment(1)]
    label = np.concatenate([data.label, turned.label[:1], 1 - data.label[1:2]])
    joined = Preferences(many(*zip(*rows, strict=True)), many(*zip(*others, strict=True)), label)
    found = doubles(joined)
    assert found.identical == (5,)
    assert found.contradictory == ((1, 6),)
    assert doubles(Preferences(data.first, data.first, data.label)).trivial == (0, 1, 2, 3, 4)


def test_teachers_err_as_often_as_they_say():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 40_000))
    teacher = Teacher(beta=2.0, mistake=0.1)
    answers = teacher.answer(first, second, rng)
    best = answers.probability > 0.5
    assert answers.bayes_accuracy == pytest.approx(((answers.label > 0.5) == best).mean(), abs=0.01)
    assert bayes_rate(Teacher(beta=math.inf, mistake=0.1).probability(first, second)) == pytest.approx(0.9)
    chosen = Teacher().for_accuracy(first, second, 0.87)
    assert bayes_rate(chosen.probability(first, second)) == pytest.approx(0.87, abs=1e-6)
    with pytest.raises(ValueError, match="no beta"):
        teacher.for_accuracy(first, second, 0.95)


def test_teachers_skip_tie_and_forget():
    teacher = Teacher(tie_within=0.5, skip_below=0.0)
    answers = teacher.answer(np.array([1.0, 2.0, -3.0]), np.array([1.2, 0.0, -1.0]), np.random.default_rng(0))
    assert answers.label[0] == 0.5
    assert answers.asked.tolist() == [True, True, False]
    assert Teacher(gamma=0.5).weigh(np.array([4.0, 2.0, 1.0])) == pytest.approx(1 + 1 + 1)
    for bad in ({"beta": 0}, {"gamma": 0}, {"mistake": 0.5}, {"tie_within": -1}):
        with pytest.raises(ValueError, match="Teacher"):
            Teacher(**bad)


def test_segments_are_cut_inside_their_episodes():
    made = episodes(4)
    which, starts, lengths = cut(made, 500, (5, 60), np.random.default_rng(0))
    assert (starts >= 0).all()
    assert all(start + length <= len(made[e]) for e, start, length in zip(which, starts, lengths, strict=True))
    with pytest.raises(PreferenceError, match="do not fit"):
        cut(made, 5, 61, np.random.default_rng(0))


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_labels(name):
    data = label_episodes(
        episodes(3), pairs=10, score=SCORES[name], teacher=Teacher(), rng=np.random.default_rng(0), length=5
    ).data
    assert len(data) == 10
    assert data.cost_1 is not None

"""Other projects' formats, and pickles that want more than numbers."""

import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from diffdecide.app.cli.main import main
from reward_models.importers import from_chosen, from_fragments, from_indices, load_index_array, qlearning_rows
from reward_models.preference_files import read_preferences
from reward_models.preferences import PreferenceError

OBS = np.arange(40, dtype=np.float32).reshape(20, 2)
ACT = np.zeros((20, 1), np.float32)
ENDS = np.arange(20) % 10 == 9


def test_index_labels():
    data = from_indices(OBS, ACT, ENDS, np.array([0, 1, -1]), [0, 3, 10], [10, 15, 2], length=4, costs=np.ones(20))
    assert data.label.tolist() == [1.0, 0.0, 0.5]
    assert np.array_equal(data.first.segment(1)[0], OBS[3:7])
    assert data.trajectory_2.tolist() == ["1", "1", "0"]
    assert data.cost_1.tolist() == [4.0, 4.0, 4.0]
    soft = from_indices(OBS, ACT, ENDS, np.array([[0.5, 0.5]]), [0], [1], length=4)
    assert soft.label.tolist() == [0.5]


@pytest.mark.parametrize(
    ("labels", "first", "message"),
    [
        ([0, 2], [0, 1], r"labels: .*row 1"),
        ([0, 1], [0, 17], r"indices_1: row 1: .*does not fit.*is this the data file"),
        ([0, 1], [0, 8], r"indices_1: row 1: .*across the end"),
        ([0, 1], [0], "expected 2 rows"),
        ([0, 1], [0.5, 1], "whole numbers"),
    ],
)
def test_labels_that_do_not_fit_the_data(labels, first, message):
    with pytest.raises(PreferenceError, match=message):
        from_indices(OBS, ACT, ENDS, np.array(labels), np.array(first), np.zeros(2), length=4)


def test_qlearning_indexing_leaves_out_last_steps():
    assert qlearning_rows(np.zeros(20), ENDS).tolist() == [*range(9), *range(10, 19)]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_numbers_need_the_flag(tmp_path, protocol):
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps(np.array([0, 1, -1]), protocol=protocol))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_index_array(path)
    assert load_index_array(path, allow_pickle=True).tolist() == [0, 1, -1]


class Harm:
    def __reduce__(self):
        return (print, ("run!",))


def test_pickles_of_anything_else_are_not_run(tmp_path, capsys):
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps([Harm()]))
    with pytest.raises(PreferenceError, match=r"builtins\.print"):
        load_index_array(path, allow_pickle=True)
    assert capsys.readouterr().out == ""
    path.write_bytes(b"no pickle")
    with pytest.raises(PreferenceError, match="pickle of numbers"):
        load_index_array(path, allow_pickle=True)


@dataclass
class Fragment:
    obs: np.ndarray
    acts: np.ndarray


def test_fragments_drop_the_last_observation():
    pair = (Fragment(OBS[:5], ACT[:4]), Fragment(OBS[5:10], ACT[:4]))
    data = from_fragments([pair], np.array([0.0]))
    assert np.array_equal(data.second.segment(0)[0], OBS[5:9])
    with pytest.raises(PreferenceError, match="row 0"):
        from_fragments([(Fragment(OBS[:4], ACT[:4]), pair[1])], np.array([0.0]))


def test_chosen_and_rejected():
    row = {"chosen": {"obs": OBS[:2], "act": ACT[:2]}, "rejected": {"obs": OBS[2:4], "act": ACT[:2]}, "prompt": "go"}
    rows = [row] * 40
    data = from_chosen(rows, rng=np.random.default_rng(0))
    assert 0 < data.label.mean() < 1
    for i in (0, 1, 2, 3):
        preferred = data.first if data.label[i] == 1 else data.second
        assert np.array_equal(preferred.segment(i)[0], OBS[:2])
    assert from_chosen(rows).label.tolist() == [1.0] * 40
    with pytest.raises(PreferenceError, match=r"'chosen'; did you mean 'choosen'"):
        from_chosen([{"choosen": 1, "rejected": 1}])


def test_the_command_takes_chosen_and_rejected(tmp_path, capsys):
    part = lambda rows: {"obs": OBS[rows].tolist(), "act": ACT[rows].tolist()}  # noqa: E731
    rows = [{"chosen": part(slice(0, 2)), "rejected": part(slice(2, 4)), "prompt": "go"} for _ in range(6)]
    lines, out = tmp_path / "data.jsonl", tmp_path / "pairs.parquet"
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    assert main(["label", "chosen", str(lines), "--out", str(out)]) == 0
    data = read_preferences(out)
    assert data.prompt.tolist() == ["go"] * 6
    for row in range(6):
        preferred = data.first if data.label[row] == 1 else data.second
        assert np.array_equal(preferred.segment(row)[0], OBS[:2])
    out.unlink()
    for change, message in (({"rejected": None}, "row 6: rejected"), ({"chosen": {"obs": []}}, "row 6: chosen")):
        lines.write_text("\n".join(json.dumps(row) for row in [*rows, {**rows[0], **change}]))
        assert main(["label", "chosen", str(lines), "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()

"""What is wrong with preference data is said with its rows, and leaves nothing half-written."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import gymnasium
import h5py
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from reward_samples import episodes, labelled

from diffdecide.app.cli.main import main
from diffdecide.data.writers import write_hdf5
from reward_models.config import RewardConfig
from reward_models.labelling.store import LabelStore
from reward_models.model import RewardModel
from reward_models.preference_files import read_preferences, stream_preferences, to_table, write_preferences
from reward_models.preferences import PreferenceError
from reward_models.wrapper import LearnedReward


def nested(rows, name, change):
    """The table of comparisons with one column of lists changed by `change(list of rows)`."""
    table = to_table(labelled(rows, length=3).data)
    values = table[name].to_pylist()
    change(values)
    return table.set_column(table.column_names.index(name), name, pyarrow.array(values))


def wide(values):
    values[2] = [[*step, 0.0] for step in values[2]]


def no_segment(values):
    values[2] = None


def no_step(values):
    values[2][1] = None


def no_number(values):
    values[2][1][0] = None


def nan(values):
    values[2][1][0] = float("nan")


def empty(values):
    values[2] = []


def short(values):
    values[2] = values[2][:1]


def words(values):
    values[:] = [[["a"] for _ in row] for row in values]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("obs_1", wide, r"obs_1: expected one width in all rows, got \[4, 5\], row 2"),
        ("obs_1", no_segment, "obs_1: expected a segment in every row, got none in row 2"),
        ("act_2", no_step, "act_2: expected values in every step, got none in row 2"),
        ("obs_2", no_number, "obs_2: expected finite values, got missing ones in row 2"),
        ("obs_2", nan, "obs_2: expected finite values, got NaN or infinity in row 2"),
        ("act_1", short, "row 2: obs_1 and act_1 differ in length"),
        ("obs_1", words, "obs_1: expected numbers, got string"),
    ],
)
def test_each_fault_is_named_with_its_row_also_behind_the_first_file(name, change, message, tmp_path):
    table = nested(4, name, change)
    parquet.write_table(table, tmp_path / "data.parquet")
    with pytest.raises(PreferenceError, match=message):
        read_preferences(tmp_path / "data.parquet")
    folder = tmp_path / "folder"
    write_preferences(labelled(10, length=3).data.take(range(10)), folder / "a.parquet")
    extra = [column for column in parquet.read_schema(folder / "a.parquet").names if column not in table.column_names]
    assert not extra
    fault = parquet.read_table(tmp_path / "data.parquet").select(parquet.read_schema(folder / "a.parquet").names)
    if name in ("obs_1", "obs_2", "act_1", "act_2") and change is not words:
        kind = parquet.read_schema(folder / "a.parquet").field(name).type
        fault = fault.set_column(fault.column_names.index(name), name, fault[name].cast(kind))
        parquet.write_table(fault, folder / "b.parquet")
        with pytest.raises(PreferenceError, match=message.replace("row 2", "row 12")):
            read_preferences(folder)


def test_segments_without_steps_and_sides_of_two_widths(tmp_path):
    table = nested(4, "obs_1", empty)
    actions = table["act_1"].to_pylist()
    actions[2] = []
    parquet.write_table(table.set_column(1, "act_1", pyarrow.array(actions)), tmp_path / "empty.parquet")
    with pytest.raises(PreferenceError, match="row 2: expected a segment of at least one step"):
        read_preferences(tmp_path / "empty.parquet")
    table = nested(4, "obs_2", lambda rows: rows.__setitem__(slice(None), [[s[:3] for s in row] for row in rows]))
    parquet.write_table(table, tmp_path / "widths.parquet")
    with pytest.raises(PreferenceError, match="obs_1 is 4 wide and obs_2 is 3 wide"):
        read_preferences(tmp_path / "widths.parquet")


@pytest.mark.parametrize(
    ("given", "wanted"), [("lable", "label"), ("obs1", "obs_1"), ("promt", "prompt"), ("costs_1", "cost_1")]
)
def test_misnamed_columns_bring_the_nearest_name(given, wanted, tmp_path):
    data = replace(labelled(4, length=3).data, prompt=np.array(["go"] * 4, dtype=object))
    table = to_table(data)
    names = [given if name == wanted else name for name in table.column_names]
    parquet.write_table(table.rename_columns(names), tmp_path / "data.parquet")
    with pytest.raises(PreferenceError, match=rf"did you mean '{given if wanted in ('label', 'obs_1') else wanted}'"):
        read_preferences(tmp_path / "data.parquet")


def test_columns_of_others_are_left_aside(tmp_path):
    table = to_table(labelled(4, length=3).data).append_column("weather", pyarrow.array(["fine"] * 4))
    parquet.write_table(table, tmp_path / "data.parquet")
    assert len(read_preferences(tmp_path / "data.parquet")) == 4


@pytest.mark.parametrize("value", [1.2, -0.1, float("nan"), None])
def test_labels_outside_the_range_name_their_rows(value, tmp_path):
    table = to_table(labelled(30, length=3).data)
    labels = table["label"].to_pylist()
    labels[17] = value
    column = table.column_names.index("label")
    parquet.write_table(
        table.set_column(column, "label", pyarrow.array(labels, pyarrow.float32())), tmp_path / "d.parquet"
    )
    with pytest.raises(PreferenceError, match="label: .*row 17"):
        read_preferences(tmp_path / "d.parquet")
    with pytest.raises(PreferenceError, match=r"rows counted from 10\): label: .*row 7"):
        list(stream_preferences(tmp_path / "d.parquet", rows=10))
    for words in (["label", "check", str(tmp_path / "d.parquet")], ["train", "reward", str(tmp_path / "d.parquet")]):
        extra = ["--out", str(tmp_path / "model")] if words[0] == "train" else []
        assert main([*words, *extra]) == 2
    assert not (tmp_path / "model").exists()


TRAIN = ["--steps", "2", "--eval-every", "1", "--members", "1", "--no-progress", "--tracker", "None", "--device", "cpu"]


def test_training_refuses_before_it_writes(tmp_path, capsys):
    data = labelled(20, length=3).data
    good = write_preferences(data, tmp_path / "good.parquet")
    ties = write_preferences(data.with_labels(np.full(20, 0.5)), tmp_path / "ties.parquet")
    bare = write_preferences(replace(data, cost_1=None, cost_2=None), tmp_path / "bare.parquet")
    narrow = labelled(20, length=3).data
    narrow = replace(
        narrow,
        first=replace(narrow.first, observations=narrow.first.observations[:, :3]),
        second=replace(narrow.second, observations=narrow.second.observations[:, :3]),
    )
    other = write_preferences(narrow, tmp_path / "narrow.parquet")
    one = write_preferences(data.take([0]), tmp_path / "one.parquet")
    out = tmp_path / "model"
    for words, message in (
        ([str(good), "--held-out", str(ties)], "at least one comparison that is no tie"),
        ([str(good), "--held-out", str(other)], "expected observations and actions 4 and 2 wide, got 3 and 2"),
        ([str(bare), "--held-out", str(good), "--cost-head"], "cost_1 and cost_2"),
        ([str(one)], "side is empty"),
        ([str(good), "--prompts", "minilm"], "no column prompt"),
        ([str(good), "--mapped"], "--mapped needs --held-out"),
        ([str(tmp_path / "none.parquet")], "none.parquet"),
    ):
        assert main(["train", "reward", *words, "--out", str(out), *TRAIN]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists() or not any(out.iterdir()), words


def test_a_label_file_that_does_not_fit_its_data_writes_nothing(tmp_path, capsys):
    data, out = write_hdf5(tmp_path / "data.hdf5", episodes(3)), tmp_path / "pairs.parquet"
    np.save(tmp_path / "one.npy", np.array([0, 20, 60]))
    np.save(tmp_path / "two.npy", np.array([5, 30, 100]))
    words = [
        "label",
        "import",
        str(data),
        "--indices-1",
        str(tmp_path / "one.npy"),
        "--out",
        str(out),
        "--segment",
        "10",
    ]

    def run(labels, second):
        np.save(tmp_path / "labels.npy", np.array(labels))
        np.save(tmp_path / "two.npy", np.array(second))
        more = ["--labels", str(tmp_path / "labels.npy"), "--indices-2", str(tmp_path / "two.npy")]
        return main([*words, *more]), capsys.readouterr()

    for labels, second, message in (
        ([0, 1, 7], [5, 30, 100], "labels: expected 0, 1 or -1 (tie), got 7 in row 2"),
        ([0, 1], [5, 30, 100], "indices_1: expected 2 rows as labels, got 3"),
        ([0, 1, -1], [5, 30, 175], "indices_2: row 2: a segment of 10 steps from step 175 does not fit into 180 steps"),
        ([0, 1, -1], [5, 55, 100], "indices_2: row 1: the segment from step 55 runs across the end of an episode"),
    ):
        code, said = run(labels, second)
        assert code == 2
        assert message in said.err
        assert not out.exists()
    assert run([0, 1, -1], [5, 30, 100])[0] == 0
    assert read_preferences(out).label.tolist() == [1.0, 0.0, 0.5]
    with h5py.File(data, "r+") as file:
        del file["actions"]
    code, said = run([0, 1, -1], [5, 30, 100])
    assert code == 2
    assert "actions" in said.err


def test_a_reward_of_another_environment_is_refused_and_nothing_is_written(tmp_path, capsys):
    data, out, folder = write_hdf5(tmp_path / "data.hdf5", episodes(2)), tmp_path / "new.hdf5", tmp_path / "model"
    RewardModel(RewardConfig(observation_dim=4, action_dim=2, env_id="Other-v0", members=1)).save_pretrained(folder)
    assert main(["label", "rewards", str(data), "--reward", str(folder), "--out", str(out)]) == 2
    assert "trained for Other-v0, it cannot judge Test-v0" in capsys.readouterr().err
    assert not out.exists()

    class Env(gymnasium.Env):
        env_id = "Test-v0"
        observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    with pytest.raises(ValueError, match="cannot judge Test-v0"):
        LearnedReward(Env(), RewardModel.from_pretrained(folder))


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_preferences(labelled(5, length=3).data, tmp_path / "data.parquet")
    before = path.read_bytes()

    def full(table, where, **options):
        where.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(parquet, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        write_preferences(labelled(9, length=3).data, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_labelling_session_loses_no_label(tmp_path):
    """The real command, killed without warning right after an answer was taken; then it goes on where it was."""
    spec = "SafetyPointGoal1-v0"
    made = []
    for item in episodes(3, env_id=spec):
        observations = np.random.default_rng(item.seed).uniform(size=(len(item), 60)).astype(np.float32)
        made.append(replace(item, observations=observations, next_observations=observations))
    data, out = write_hdf5(tmp_path / "data.hdf5", made), tmp_path / "labels.jsonl"
    words = [sys.executable, "-u", "-m", "diffdecide.app", "label", "page", str(data), "--out", str(out)]
    words += ["--port", "0", "--pairs", "5", "--segment", "10"]

    def session(answers):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            line = process.stdout.readline()
            url = next(word for word in line.split() if word.startswith("http"))
            for answer in answers:
                with urllib.request.urlopen(url + "question", timeout=60) as reply:
                    question = json.loads(reply.read())
                body = json.dumps({"number": question["number"], "answer": answer}).encode()
                request = urllib.request.Request(url + "answer", body, {"X-Label-Token": question["token"]})
                with urllib.request.urlopen(request, timeout=60) as reply:
                    assert reply.status == 200
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
            process.stdout.close()
        return line

    assert session(["first", "tie"]).startswith("0 of 5 answered")
    time.sleep(0.05)
    assert session(["second"]).startswith("2 of 5 answered")
    data_out = tmp_path / "pairs.parquet"
    assert main(["label", "export", str(out), "--data", str(data), "--out", str(data_out), "--segment", "10"]) == 0
    assert read_preferences(data_out).label.tolist() == [1.0, 0.5, 0.0]
    assert main(["label", "export", str(out), "--data", str(data), "--out", str(data_out), "--segment", "9"]) == 2


def test_a_session_killed_in_its_first_line_begins_anew(tmp_path):
    path = tmp_path / "labels.jsonl"
    LabelStore(path, fingerprint="x")
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    assert LabelStore(path, fingerprint="x").answers == {}
    assert path.read_bytes() == whole

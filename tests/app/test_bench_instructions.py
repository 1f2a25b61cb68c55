"""Prompts to rollouts: reading prompts, all rows, failures by reason, slot accuracies."""

import json

import pytest

from diffdecide.app.bench.instructions import ROWS, failure_reason, read_prompts, slot_accuracy, write_results
from diffdecide.app.cli.main import main
from diffdecide.records import EpisodeRecord, EvaluationResult

TASK = {"kind": "sequence", "targets": ["green", "red"], "avoid": [], "caution": "careful"}
PROMPTS = [
    {"prompt": "go to green and then to red, carefully", "task": TASK},
    {"prompt": "qwertz uiop", "task": TASK},
    {"prompt": "stay in the blue zone", "task": {"kind": "stay", "targets": ["blue"]}},
]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(entry) for entry in PROMPTS) + "\n\n")
    return path


def record(seed, success, **details):
    return EpisodeRecord(seed, 0.0, 0.0, 500, success, 0, 0, 0.0, details={"prompt": "p", "task": TASK, **details})


def reading(spec, refused=False, code=""):
    return {"spec": spec, "refused": refused, "code": code}


def test_all_rows_on_the_same_seeds_with_what_was_understood(small_planner, bridge_once, prompts, tmp_path):
    out = tmp_path / "out"
    words = ["bench", "instructions", "--prompts", prompts, "--planner", small_planner, "--out", out]
    words += ["--episodes", 2, "--max-steps", 2, "--seed", 5000]
    assert main([str(word) for word in words]) == 0
    content = json.loads((out / "results.json").read_text())
    assert {"episodes", "aggregate", "meta", "rows"} <= content.keys()
    assert [episode["seed"] for episode in content["episodes"]] == list(range(5000, 5006))
    assert [episode["prompt"] for episode in content["episodes"]] == [p["prompt"] for p in PROMPTS] * 2
    assert content["episodes"][0]["understood"]["spec"]["targets"] == ["green", "red"]
    assert content["episodes"][1]["understood"]["refused"]
    assert content["episodes"][1]["success"] is False
    assert content["rows"].keys() == ROWS.keys()
    for name in ROWS:
        row = json.loads((out / f"{name}.json").read_text())
        assert [episode["seed"] for episode in row["episodes"]] == list(range(5000, 5006))
    assert any(reason.startswith("declined") for reason in content["rows"]["bridge"]["failures"])
    assert content["rows"]["canonical"]["slots"] is None
    assert content["rows"]["regex"]["slots"]["targets"] == pytest.approx(2 / 3)
    table = (out / "table.md").read_text()
    assert all(title in table for title in ROWS.values())
    assert main(["bench", "table", str(out)]) == 0
    assert (out / "table.md").read_text() == table


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (record(0, True, understood=reading(TASK)), None),
        (record(0, False, understood=reading(None, True, "off_topic")), "declined (off_topic)"),
        (record(0, False, understood=reading(TASK | {"targets": ["red", "green"]})), "understood as another task"),
        (record(0, False, understood=reading(TASK | {"caution": "rush"}), reason="visited red"), "visited red"),
        (record(0, False, understood=reading(TASK), reason=""), "not done when the time was up"),
        (record(0, False, reason="entered the forbidden blue zone"), "entered the forbidden blue zone"),
    ],
)
def test_failures_are_told_by_their_first_cause(made, reason):
    assert failure_reason(made) == reason


def test_slot_accuracy_counts_declined_prompts_as_wrong():
    rows = [
        record(0, True, understood=reading(TASK)),
        record(1, True, understood=reading(TASK | {"caution": "rush"})),
        record(2, False, understood=reading(TASK | {"targets": ["red"]})),
        record(3, False, understood=reading(None, True, "unsure")),
    ]
    found = slot_accuracy(EvaluationResult(tuple(rows)))
    assert found == {
        "kind": 0.75, "targets": 0.5, "avoid": 0.75, "caution": 0.5, "task": 0.5, "full": 0.25, "declined": 0.25,
    }  # fmt: skip


def test_language_is_compared_with_the_task_itself(tmp_path):
    ours = EvaluationResult(tuple(record(i, i > 0, understood=reading(TASK)) for i in range(4)))
    ceiling = EvaluationResult(tuple(record(i, True) for i in range(4)))
    write_results({"bridge": ours, "canonical": ceiling}, tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["rows"]["bridge"]["success_minus_canonical"]["mean"] == -0.25
    assert content["rows"]["canonical"]["success_minus_canonical"] is None
    assert content["rows"]["bridge"]["failed"] == [
        {"seed": 0, "prompt": "p", "reason": "not done when the time was up"}
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: "),
        ('{"prompt": "go"}', ":2: expected an object"),
        ('{"prompt": 3, "task": {}}', ":2: expected an object"),
        ('{"prompt": "go", "task": {"kind": "reach", "targets": ["pink"]}}', "pink"),
        ("[]", ":2: expected an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(PROMPTS[0]) + "\n" + line + "\n")
    with pytest.raises(ValueError, match="p.jsonl") as error:
        read_prompts(path)
    assert message in str(error.value)


def test_files_without_prompts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_prompts(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no prompts"):
        read_prompts(tmp_path / "empty.jsonl")


def test_bad_input_is_one_message_and_exit_code_2(prompts, small_planner, tmp_path, capsys):
    base = ["bench", "instructions", "--prompts", str(prompts), "--out", str(tmp_path / "out")]
    base += ["--planner", str(small_planner)]
    assert main([*base, "--env", "SafetyPointGoal1-v0"]) == 2
    assert "has no zones" in capsys.readouterr().err
    assert main([*base, "--only", "parrot"]) == 2
    assert "unknown rows parrot" in capsys.readouterr().err
    assert main([*base, "--only", "bridge", "--bridge", str(tmp_path)]) == 2
    assert "there is no config.json" in capsys.readouterr().err

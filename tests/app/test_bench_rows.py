"""The main table: every row runs, runs go on where they stopped, and the table comes from the JSON alone."""

import json

import pytest

from diffdecide.app.bench.rows import (
    CEILING,
    ROWS,
    RowsConfig,
    load_rows,
    row_factory,
    select_rows,
    share_of,
    write_table,
)
from diffdecide.app.cli.main import main
from diffdecide.records import EpisodeRecord, EvaluationResult
from safety.envs import spec

GOAL, ZONES = "SafetyPointGoal1-v0", "SafetyPointZones1-v0"


def bench(*words):
    return main(["bench", *map(str, words)])


def result(returns, costs=None, seed=10_000):
    costs = costs or [0.0] * len(returns)
    return EvaluationResult(
        tuple(
            EpisodeRecord(seed + i, value, cost, 1000, True, 3, 0, 0.01, plan_ms=9.0)
            for i, (value, cost) in enumerate(zip(returns, costs, strict=True))
        ),
        meta={"env": GOAL, "seeds": [seed, seed + len(returns) - 1]},
    )


def test_every_row_acts_and_the_table_has_them_all(small_planner, small_cloned, tmp_path, capsys):
    options = ["--env", GOAL, "--planner", small_planner, "--cloned", small_cloned, "--out", tmp_path]
    options += ["--episodes", 2, "--max-steps", 3, "--seed", 5000]
    assert bench("rows", *options) == 0
    out = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    for row in ROWS:
        content = json.loads((tmp_path / f"{row.name}.json").read_text())
        assert [episode["seed"] for episode in content["episodes"]] == [5000, 5001]
        assert content["meta"]["filter"] is row.filtered
        assert row.title in table
    assert table.strip() in out
    before = {path: path.read_text() for path in tmp_path.glob("*.json")}
    assert bench("rows", *options) == 0  # nothing is left to do: the episodes stay as they are
    for path, text in before.items():
        assert json.loads(text)["episodes"] == json.loads(path.read_text())["episodes"]
    assert bench("table", tmp_path) == 0


def test_rows_differ_in_what_they_say_they_differ_in(small_planner, small_cloned):
    config = RowsConfig(env=GOAL, planner=str(small_planner), cloned=str(small_cloned), margin=0.04)
    made = {row.name: row_factory(row, config, spec(GOAL)) for row in select_rows(())}
    assert made["gaussian"]().agent.planner.config.proposal == "gaussian"
    assert made["planner"]().agent.planner.config.proposal == "diffusion"
    assert made["zeroed"]().agent.config.zero_embedding
    assert not made["planner_unfiltered"]().agent.config.filtered
    assert made["planner"]().agent.config.margin == 0.04
    assert type(made["bc"]().agent.planner).__name__ == "CloningPlanner"
    assert hasattr(made["mpc"](), "bind")  # privileged
    assert not hasattr(made["planner"](), "bind")


def test_zone_tasks_are_drawn_from_the_seeds(small_planner, tmp_path):
    options = ["--env", ZONES, "--planner", small_planner, "--out", tmp_path, "--only", "planner", "random"]
    assert bench("rows", *options, "--episodes", 1, "--max-steps", 3) == 0
    tasks = [json.loads((tmp_path / f"{n}.json").read_text())["episodes"][0]["task"] for n in ("planner", "random")]
    assert tasks[0] == tasks[1]
    assert "success" in (tmp_path / "table.md").read_text()


def test_figures_of_the_table(tmp_path):
    result([20.0, 30.0]).save(tmp_path / f"{CEILING}.json")
    result([18.0, 27.0], costs=[0.0, 4.0]).save(tmp_path / "planner.json")
    rows = load_rows(tmp_path)
    assert list(rows) == ["planner", CEILING]
    assert share_of(rows["planner"], rows[CEILING]) == pytest.approx(0.9)
    line = next(line for line in write_table(tmp_path).splitlines() if "planner + filter" in line)
    assert "| 22.5 [18, 27] | 90 % | -2.5 [-3, -2] | 2 [0, 4] | 4 |" in line


def test_shares_are_of_common_seeds_only():
    ours, ceiling = result([10.0, 20.0], seed=10_001), result([1000.0, 20.0])
    assert share_of(ours, ceiling) == pytest.approx(0.5)


def test_a_missing_model_does_not_cost_the_other_rows(small_planner, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("diffdecide.app.agent_policy.ROOT", tmp_path / "nothing")
    options = ["--env", GOAL, "--planner", small_planner, "--episodes", 1, "--max-steps", 2, "--out", tmp_path / "out"]
    assert bench("rows", *options) == 1
    captured = capsys.readouterr()
    assert "row bc is left out: there is no embedded cloned policy" in captured.err
    assert (tmp_path / "out" / "random.json").exists()
    assert bench("rows", *options, "--only", "bc") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rows", "--env", GOAL, "--out", "OUT", "--only", "mcp"], "unknown rows mcp"),
        (["rows", "--env", "SafetyPointGaol1-v0", "--out", "OUT"], "SafetyPointGoal1-v0"),
        (["rows", "--env", GOAL, "--out", "OUT", "--episodes", "0"], "episodes must be at least 1"),
        (["table", "OUT"], "no folder of results"),
        (["denoisers", "mlp", "--out", "OUT"], "NAME=FOLDER"),
        (["latency", "--env", "SafetyPointGoal1-v0", "--planner", "nowhere"], "no planner 'nowhere'"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(words, message, tmp_path, capsys):
    assert bench(*[tmp_path / "out" if word == "OUT" else word for word in words]) == 2
    text = "".join(capsys.readouterr())
    assert message in " ".join(text.replace("│", " ").split())
    assert "Traceback" not in text


def test_runs_with_other_settings_are_not_mixed(small_planner, tmp_path, capsys):
    options = ["--env", GOAL, "--planner", small_planner, "--only", "random", "--max-steps", 2, "--out", tmp_path]
    assert bench("rows", *options, "--episodes", 1) == 0
    assert bench("rows", *options, "--episodes", 1, "--margin", 0.1) == 2
    assert "other settings" in capsys.readouterr().err


def test_results_of_evaluate_make_a_table_too(tmp_path):
    result([20.0, 24.0], costs=[0.0, 9.0]).save(tmp_path / "lost_readings.json")
    text = write_table(tmp_path)
    assert "| lost readings | 2 | 22 [" in text
    assert "| 9 |" in text


def test_the_filter_check_makes_a_table(tmp_path, capsys):
    from safety.filter_check import main as filter_check

    out, page = tmp_path / "filter_check.json", tmp_path / "page.md"
    run = ["--tasks", "SafetyPointCircle1-v0", "--policies", "random", "--episodes", "1", "--max-steps", "20"]
    filter_check([*run, "--out", str(out)])
    page.write_text("<!-- results:filter_check -->\n<!-- /results:filter_check -->\n")
    assert bench("table", out, "--into", page) == 0
    assert "| SafetyPointCircle1-v0 | random | 1 | 0 | 0 |" in page.read_text()
    out.write_text('{"rows": []}')
    assert bench("table", out) == 2
    assert "is no file of" in capsys.readouterr().err

"""Intervals, aggregates, comparisons and files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from diffdecide.files import jsonable, require_writable_folder, write_atomic, write_json
from diffdecide.intervals import bootstrap_mean, paired_difference
from diffdecide.records import EpisodeRecord, EvaluationResult, provenance


def record(seed, return_=1.0, cost=0.0, **rest):
    values = {"length": 10, "success": True, "interventions": 0, "infeasible": 0, "stuck": 0.0} | rest
    return EpisodeRecord(seed=seed, return_=return_, cost=cost, **values)


def test_interval_of_a_normal_sample_has_the_textbook_width():
    sample = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    interval = bootstrap_mean(sample)
    half = 1.96 * sample.std(ddof=1) / math.sqrt(400)
    assert interval.mean == pytest.approx(sample.mean())
    assert interval.high - interval.mean == pytest.approx(half, rel=0.1)
    assert bootstrap_mean(sample) == interval  # seeded


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [0.0] * 20])
def test_equal_values_have_an_interval_of_no_width(values):
    interval = bootstrap_mean(values)
    assert interval.low == interval.mean == interval.high == values[0]


def test_one_value_has_no_interval():
    interval = bootstrap_mean([2.0])
    assert interval.mean == 2.0
    assert math.isnan(interval.low)
    assert str(interval) == "2"


def test_two_values_and_one_outlier_stay_finite():
    for values in ([0.0, 1.0], [0.0] * 99 + [200.0]):
        interval = bootstrap_mean(values)
        assert interval.low <= interval.mean <= interval.high


@pytest.mark.parametrize("values", [[], [[1.0]], [1.0, math.nan]])
def test_intervals_refuse_what_has_no_mean(values):
    with pytest.raises(ValueError, match="bootstrap_mean needs"):
        bootstrap_mean(values)


def test_pairing_removes_the_spread_between_seeds():
    layout = np.random.default_rng(1).normal(0, 10, size=50)
    ours, theirs = layout + 1.0 + np.random.default_rng(2).normal(0, 0.1, 50), layout
    difference = paired_difference(ours, theirs)
    assert 0.9 < difference.low < difference.high < 1.1
    with pytest.raises(ValueError, match="one shape"):
        paired_difference(ours, theirs[:3])


def test_aggregate_of_the_cost_knows_its_tail():
    result = EvaluationResult(tuple(record(i, cost=float(i)) for i in range(20)), cost_limit=15.0)
    cost = result.aggregate()["cost"]
    assert cost["mean"] == pytest.approx(9.5)
    assert cost["max"] == 19.0
    assert cost["cvar_0.1"] == pytest.approx(18.5)
    assert cost["share_within_limit"] == pytest.approx(0.8)


def test_values_that_are_missing_do_not_count():
    result = EvaluationResult((record(0, success=None), record(1, success=True), record(2, success=False)))
    assert result.aggregate()["success"]["count"] == 2
    assert result.aggregate()["success"]["mean"] == 0.5
    assert result.aggregate()["plan_ms"] is None
    assert EvaluationResult(()).aggregate() == {"count": 0}


def test_comparison_is_paired_by_seed_not_by_position():
    ours = EvaluationResult((record(1, 11.0), record(2, 22.0), record(3, 33.0)))
    theirs = EvaluationResult((record(2, 20.0), record(3, 31.0), record(4, 0.0)))
    assert ours.compare(theirs).mean == pytest.approx(2.0)
    assert ours.compare(theirs).count == 2
    with pytest.raises(ValueError, match="no seed"):
        ours.compare(EvaluationResult((record(9),)))


def test_records_are_equal_when_only_the_clock_differs():
    assert record(1, plan_ms=3.0) == record(1, plan_ms=4.0)
    assert record(1, return_=3.0) != record(1, return_=4.0)


def test_details_become_columns_and_come_back():
    original = record(7, details={"prompt": "go", "understood": {"kind": "reach"}})
    row = original.to_json()
    assert row["return"] == 1.0
    assert row["prompt"] == "go"
    assert EpisodeRecord.from_json(json.loads(json.dumps(row))) == original
    with pytest.raises(ValueError, match="names of record fields"):
        record(7, details={"cost": 3}).to_json()
    with pytest.raises(ValueError, match="lacks"):
        EpisodeRecord.from_json({"seed": 1})


@pytest.mark.parametrize("limit", [-1.0, math.nan, math.inf])
def test_cost_limit_is_checked(limit):
    with pytest.raises(ValueError, match="cost_limit"):
        EvaluationResult((), cost_limit=limit)


def test_provenance_names_no_place_of_this_machine(tmp_path):
    meta = provenance(["/usr/lib/bin/diffdecide", "evaluate", "--out", str(tmp_path / "x.json"), "a b"])
    assert meta["command"] == "diffdecide evaluate --out x.json 'a b'"
    told = provenance(["/opt/bin/diffdecide", "bench", "mlp=/srv/runs/mlp", "--out=/srv/x", str(Path.cwd() / "y")])
    assert told["command"] == "diffdecide bench mlp=mlp --out=x y"
    assert str(tmp_path) not in json.dumps(meta)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def half(temporary):
        temporary.write_text("{")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_atomic(path, half)
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_json_knows_arrays_sets_and_numbers_that_are_none():
    value = {"a": np.arange(2), "b": {"y", "x"}, "c": math.nan, "d": np.float32(1.5), 3: (1, 2)}
    assert jsonable(value) == {"a": [0, 1], "b": ["x", "y"], "c": None, "d": 1.5, "3": [1, 2]}


def test_unwritable_folders_are_told_before_the_work(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        require_writable_folder(blocker / "out")

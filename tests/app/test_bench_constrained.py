"""`diffdecide bench constrained`: methods compared on the embedded planner, kept, and told again."""

from dataclasses import replace

import pytest

from diffdecide.app.bench.constrained import ConstrainedConfig, compare_methods
from diffdecide.app.bench.tables import make_table
from diffdecide.files import read_json, write_json

SMALL = ConstrainedConfig(methods=("none", "projected-final"), episodes=1, seed=6000, max_steps=8, candidates=2)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("constrained")
    return out, compare_methods(SMALL, out, told=lambda line: None)


def test_methods_are_compared_and_those_not_run_say_so(compared):
    out, table = compared
    record = read_json(out / "constrained.json")
    assert set(record["methods"]) == {"none", "projected-final"}
    figures = record["methods"]["projected-final"]
    assert figures["episodes"] == 1
    assert figures["candidates_milliseconds"]["mean"] > 0
    assert figures["candidates_violation"]["mean"] <= record["methods"]["none"]["candidates_violation"]["mean"] + 1e-9
    assert table.count("not run") == len(table.splitlines()) - 2 - 2


def test_finished_episodes_are_kept_and_the_table_can_be_made_again(compared):
    out, table = compared
    before = (out / "none.json").read_bytes()
    assert compare_methods(SMALL, out, told=lambda line: None) == table
    assert (out / "none.json").read_bytes() == before
    assert make_table(out) == table


def test_results_of_other_settings_or_versions_are_refused(compared, tmp_path):
    out, _ = compared
    with pytest.raises(ValueError, match="candidates 2 there, 3 here"):
        compare_methods(replace(SMALL, candidates=3), out, told=lambda line: None)
    write_json(tmp_path / "constrained.json", read_json(out / "constrained.json") | {"version": 0})
    with pytest.raises(ValueError, match="version 0"):
        make_table(tmp_path)
    with pytest.raises(ValueError, match="wrong"):
        ConstrainedConfig(methods=("wrong",))

"""Critics from data files, the safe-RL benchmark's cells and report, plots: on small real parts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from diffdecide.app.bench.safe_rl import SafeRLConfig, cells, open_folder, run
from diffdecide.app.bench.safe_rl_methods import METHODS
from diffdecide.app.bench.safe_rl_report import bootstrap_tail, write_report
from diffdecide.app.cli.main import main
from diffdecide.data.episode import Episode
from diffdecide.data.writers import write_hdf5
from diffdecide.files import write_json

ENV = "SafetyPointGoal1-v0"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six short episodes of random numbers in the layout of ENV: half of them cost something."""
    generator = np.random.default_rng(0)
    episodes = []
    for index in range(6):
        steps = 120
        seen = generator.normal(size=(steps + 1, 60))
        costs = (generator.random(steps) < 0.2 * (index % 2)).astype(float)
        last = np.zeros(steps, dtype=bool)
        last[-1] = True
        episodes.append(
            Episode(
                observations=seen[:-1],
                next_observations=seen[1:],
                actions=generator.uniform(-1, 1, (steps, 2)),
                rewards=generator.normal(size=steps),
                costs=costs,
                terminals=np.zeros(steps, dtype=bool),
                timeouts=last,
                constraints={"hazard0": 0.5 - costs},
                metadata={"env_id": ENV, "seed": index},
            )
        )
    path = tmp_path_factory.mktemp("data") / "data.hdf5"
    write_hdf5(path, episodes)
    return path


@pytest.mark.parametrize("kind", ["expected", "quantile", "feasibility"])
def test_a_critic_is_trained_calibrated_and_loaded(kind, data, tmp_path):
    from safety.critics.storage import load_critic

    words = ["--out", str(tmp_path), "--kind", kind, "--hidden", "8", "--gamma", "0.9"]
    words += ["--steps", "4", "--batch-size", "32", "--tracker", "None", "--no-progress", "--held-out", "0.4"]
    assert main(["train", "critic", str(data), *words]) == 0
    report = json.loads((tmp_path / "calibration.json").read_text())
    assert report["episodes"] == 2
    assert load_critic(tmp_path).kind == kind
    if kind == "quantile":
        assert len(report["cost"]["coverage"]) == len(report["cost"]["levels"])
        assert main(["plot", str(tmp_path / "calibration.json"), "--out", str(tmp_path / "again.png")]) == 0
        assert (tmp_path / "again.png").stat().st_size > 1000


def test_a_data_file_without_costs_is_refused_by_name(tmp_path, capsys):
    import h5py

    with h5py.File(tmp_path / "no_costs.hdf5", "w") as file:
        file["observations"] = np.zeros((3, 2))
    assert main(["train", "critic", str(tmp_path / "no_costs.hdf5"), "--out", str(tmp_path / "out")]) == 2
    assert "no_costs.hdf5" in capsys.readouterr().err


def small(data, **options):
    settings = {"methods": ("random", "bc", "bc-safe"), "data": {ENV: str(data)}, "limits": (10.0, 40.0)}
    settings |= {"training_seeds": (0,), "episodes": 1, "seconds": 0.2, "max_steps": 5}
    return SafeRLConfig(**(settings | options))


def test_cells_share_what_does_not_depend_on_the_limit(data):
    names = [cell.name for cell in cells(small(data, training_seeds=(0, 1)))]
    assert names.count("random") == 1
    assert "bc_seed1" in names
    assert {"bc-safe_seed0_limit10", "bc-safe_seed1_limit40"} <= set(names)
    assert len(names) == len(set(names)) == 1 + 2 + 4


def test_finished_cells_are_kept_and_the_table_says_what_is_missing(data, tmp_path):
    config = small(data)
    assert run(config, tmp_path, told=lambda text: None) == {}
    finished = tmp_path / ENV / "bc_seed0.json"
    before = finished.stat().st_mtime_ns
    run(config, tmp_path, told=lambda text: None)
    assert finished.stat().st_mtime_ns == before
    wider = small(data, methods=(*config.methods, "bc-filter"))
    table = write_report(wider, tmp_path)
    assert "BC-Safe" in table
    assert "not run" in table
    assert "median" in table  # data statistics
    results = json.loads((tmp_path / ENV / "results.json").read_text())["results"]
    assert results["random"]["10"]["cvar_0.1"]["mean"] >= 0
    assert (tmp_path / ENV / "return_cost.png").exists()


def test_reports_of_several_calls_come_together_and_one_table_shows_them(data, tmp_path):
    from diffdecide.app.bench.tables import make_table

    open_folder(small(data), tmp_path)
    with pytest.raises(ValueError, match="no results"):
        make_table(tmp_path)
    first = small(data, methods=("random",))
    run(first, tmp_path, told=lambda text: None)
    write_report(first, tmp_path)
    other = replace(first, methods=("random", "mpc"), envs=("SafetyCarCircle1-v0",), data={}, limits=(10.0,))
    assert ENV in write_report(other, tmp_path)
    table = make_table(tmp_path)
    assert f"| {ENV} | 40 | random |" in table
    assert "Not run:\n- SafetyCarCircle1-v0, limit 10: random, MPC" in table


def test_a_model_of_another_budget_or_file_is_refused(data, tmp_path):
    config = small(data, methods=("bc",))
    run(config, tmp_path, told=lambda text: None)
    (facts,) = (tmp_path / ENV / "models").rglob("training.json")
    record = json.loads(facts.read_text())
    assert record["made_with"]["budget"] == config.seconds
    facts.write_text(json.dumps(record | {"made_with": {"budget": 99.0}}))
    failed = run(small(data, methods=("bc",), episodes=2), tmp_path, told=lambda text: None)
    assert "use another folder" in failed[f"{ENV}/bc_seed0"]


def test_a_cell_that_is_not_finished_says_what_is_missing(data, tmp_path):
    config = small(data, methods=("random",))
    run(config, tmp_path, told=lambda text: None)
    assert "1 (2 episodes missing)" in write_report(replace(config, episodes=3), tmp_path)


def test_a_model_that_was_not_passed_on_with_its_results_is_trained_again(data, tmp_path):
    config = small(data, methods=("bc",))
    run(config, tmp_path, told=lambda text: None)
    (weights,) = (tmp_path / ENV / "models").rglob("*.safetensors")
    weights.unlink()
    more = small(data, methods=("bc",), episodes=2)
    assert run(more, tmp_path, told=lambda text: None) == {}
    assert weights.exists()


def test_a_method_that_cannot_run_does_not_cost_the_others(tmp_path):
    config = SafeRLConfig(methods=("bc", "random"), episodes=1, max_steps=3, training_seeds=(0,), seconds=0.1)
    failed = run(config, tmp_path, told=lambda text: None)
    assert "no data file" in failed[f"{ENV}/bc_seed0"]
    assert (tmp_path / ENV / "random.json").exists()
    assert "no data file" in write_report(config, tmp_path)


def test_a_folder_of_another_version_or_other_settings_is_refused(data, tmp_path):
    open_folder(small(data), tmp_path)
    with pytest.raises(ValueError, match="use another folder"):
        open_folder(small(data, margin=0.1), tmp_path)
    (tmp_path / "safe_rl.json").write_text('{"version": 0}')
    with pytest.raises(ValueError, match="version 0"):
        open_folder(small(data), tmp_path)


def test_bad_input_is_named(data):
    with pytest.raises(ValueError, match="unknown methods oracle"):
        small(data, methods=("oracle",))
    with pytest.raises(ValueError, match="limits"):
        small(data, limits=(-1.0,))
    with pytest.raises(ValueError, match="no such data file"):
        SafeRLConfig(data={ENV: "nowhere.hdf5"})
    assert "ours" in METHODS


def test_the_tail_has_an_interval_around_it():
    costs = np.concatenate([np.zeros(90), np.full(10, 50.0)])
    tail = bootstrap_tail(costs)
    assert tail["mean"] == 50.0
    assert tail["low"] <= 50.0 <= tail["high"]


def test_a_filter_log_is_plotted(tmp_path):
    from diffdecide.files import write_json
    from safety.filters import FilterReport
    from safety.wrappers import FilterLog

    log = FilterLog()
    for index in range(20):
        log.add(FilterReport(np.zeros(2), index % 3 == 0, False, 0.1 * index, np.inf, 0.0, "pass"), 0.0)
    log.end_episode()
    write_json(tmp_path / "log.json", log.to_dict())
    assert main(["plot", str(tmp_path / "log.json"), "--out", str(tmp_path / "log.png")]) == 0
    assert (tmp_path / "log.png").stat().st_size > 1000
    assert main(["plot", str(tmp_path / "log.json"), "--out", str(tmp_path / "log.txt")]) == 2


def test_the_summary_holds_ours_against_the_best_peer_that_is_safe(tmp_path):
    from diffdecide.app.bench.safe_rl_table import safe_rl_summary

    def figures(score, cost, tail=0.0):
        return {
            "return": {"mean": score},
            "normalised_return": score,
            "normalised_cost": cost,
            "normalised_cvar": tail,
            "safe": cost <= 1,
        }

    def row(**methods):
        results = {name: {"10": value} for name, value in methods.items()}
        write_json(tmp_path / ENV / "results.json", {"limits": [10.0, 40.0], "results": results})
        lines = [line for line in safe_rl_summary(tmp_path).splitlines() if ENV in line]
        return [cell.strip() for cell in lines[0].strip("|").split("|")] if lines else None

    peers = {"bc": figures(0.9, 2.0), "random": figures(0.1, 0.5), "cdt-filter": figures(0.4, 0.0)}
    ceiling = {"mpc": figures(0.8, 0.0), "ours-no-filter": figures(0.95, 0.1)}
    assert row(**peers) is None  # ours was not run
    told = row(ours=figures(0.5, 0.1, 0.9), **peers, **ceiling)
    assert told == [ENV, "10", "0.50", "0.10", "0.90", "0.40 (CDT (OSRL) + filter)", "0.80", "met"]
    assert row(ours=figures(0.3, 0.1, 1.1), **peers)[-2:] == ["–", "missed: tail, return"]
    assert row(ours=figures(0.3, 1.2, 1.3), bc=peers["bc"])[-3:] == ["none is safe", "–", "missed: mean cost, tail"]

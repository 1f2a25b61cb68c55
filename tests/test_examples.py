"""Every example runs. A planner of a few training steps stands in for the embedded one: how it drives is not asked."""

import importlib.util
from pathlib import Path

import pytest

from diffdecide.app.embedded import bridge_folder, planner_folder
from diffdecide.app.sample_data import ENVIRONMENTS, sample_file
from diffdecide.data.readers import read

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
POINT_ZONES = "SafetyPointZones1-v0"


def load(name):
    """The example as a module, its `main` not yet called."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def barely_trained(tmp_path_factory):
    """Folder of a planner for the zone task, trained for two steps on the sample episodes."""
    from diffdecide.app.training import ModelConfig, planner_data, train_planner
    from diffdecide.features import FeatureConfig
    from diffdecide.plan import PlanRows
    from diffdecide.train import TrainConfig
    from lm_bridge.goals import GoalSpace

    rows, features, goals = PlanRows(), FeatureConfig(), GoalSpace()
    data = planner_data([sample_file(POINT_ZONES)], rows=rows, features=features, goals=goals, progress=False)
    folder = tmp_path_factory.mktemp("planner")
    config = TrainConfig(steps=2, batch_size=8, warmup_steps=1, device="cpu", tracker=None, progress=False)
    train_planner(data, out=folder, rows=rows, features=features, goals=goals, model=ModelConfig(), train=config)
    return str(folder)


def needs_bridge():
    if not (bridge_folder("default") / "bridge.safetensors").is_file():
        pytest.skip("this checkout has no embedded language bridge yet")


def test_all_examples_are_tested():
    tests = "".join(path.read_text(encoding="utf-8") for path in EXAMPLES.parent.joinpath("tests").rglob("test_*.py"))
    for path in EXAMPLES.glob("*.py"):
        assert path.stem in tests, f"no test runs examples/{path.name}"


def test_a_planner_that_is_saved_again_does_not_tell_where_it_was(barely_trained, tmp_path):
    from diffdecide.planner import Planner

    Planner.from_pretrained(barely_trained).save_pretrained(tmp_path / "again")
    for file in (tmp_path / "again").rglob("*.json"):
        assert barely_trained not in file.read_text()


def test_quickstart(barely_trained, capsys):
    needs_bridge()
    load("quickstart").main(planner=barely_trained, steps=12)
    told = capsys.readouterr().out
    assert '"targets": ["green", "red"]' in told
    assert "after 12 steps" in told


def test_quickstart_declines_what_it_does_not_understand(barely_trained, capsys):
    needs_bridge()
    load("quickstart").main(text="go to red, never enter red", planner=barely_trained)
    assert capsys.readouterr().out.startswith("declined: ")


def test_quickstart_with_the_embedded_planner(capsys):
    needs_bridge()
    if not (planner_folder(POINT_ZONES) / "planner.json").is_file():
        pytest.skip("this checkout has no embedded planner yet: `make pretrained` makes it")
    load("quickstart").main()
    told = capsys.readouterr().out
    assert "done visited green, then red" in told


def test_own_loop(barely_trained, capsys):
    needs_bridge()
    example = load("own_loop")
    example.ORDERS = {0: example.ORDERS[0], 4: example.ORDERS[150], 8: "qwertz uiop"}
    example.main(planner=barely_trained, steps=12)
    told = capsys.readouterr().out
    assert "targets=('blue',)" in told
    assert "avoid=('red',)" in told
    assert "least room beyond the margin" in told


def test_filter_any_policy(capsys):
    load("filter_any_policy").main(seed=1, steps=250)
    told = capsys.readouterr().out
    assert "no filter: return" in told
    filtered = told.splitlines()[1]
    assert "cost   0" in filtered


def test_custom_constraint(capsys):
    load("custom_constraint").main()
    told = capsys.readouterr().out
    assert "corrected:                worst value +0.00" in told
    assert "now at rest at x = 0.65 m" in told


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_read_dsrl(env_id, capsys):
    load("read_dsrl").main(env=env_id)
    told = capsys.readouterr().out
    episodes = read(sample_file(env_id))
    assert told.count("timed out") == len(episodes) == 4
    assert f"cost {episodes[-1].total_cost:g}" in told


def test_collect_and_train(tmp_path, capsys):
    load("collect_and_train").main(out=tmp_path, episodes=1, steps=3, drive=8)
    told = capsys.readouterr().out
    assert "trained 3 steps" in told
    assert "in 8 steps" in told
    assert (tmp_path / "planner" / "planner.json").is_file()


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_sample_episodes_hold_what_examples_need(env_id):
    episodes = read(sample_file(env_id))
    assert any(episode.plans is not None for episode in episodes)
    assert any(episode.total_cost > 0 for episode in episodes)
    assert all(episode.metadata["env_id"] == env_id and episode.seed is not None for episode in episodes)


def test_sample_episodes_of_an_unknown_environment():
    with pytest.raises(ValueError, match="no sample episodes of 'SafetyAntGoal1-v0'"):
        sample_file("SafetyAntGoal1-v0")


def test_safe_sb3():
    pytest.importorskip("stable_baselines3")
    told = load("safe_sb3").main(["--steps", "256"])
    assert told["steps"] == 512  # PPO fills its buffer
    assert told["cost"] == 0

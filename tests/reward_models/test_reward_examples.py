"""examples/train_reward.py and examples/reward_wrapper.py run."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize(("name", "says"), [("train_reward", "Spearman"), ("reward_wrapper", "learned return")])
def test_reward_examples(name, says, capsys):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()
    assert says in capsys.readouterr().out

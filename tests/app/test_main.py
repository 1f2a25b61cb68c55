"""The command line's own behaviour: names, exit codes, messages."""

import subprocess
import sys
import types
from dataclasses import dataclass

import pytest

from diffdecide.app.cli import main as cli


@dataclass(frozen=True)
class Probe:
    """A command that fails on demand."""

    fail: str = ""
    count: int = 1

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(f"count must be >= 0, got {self.count=}")

    def execute(self):
        errors = {
            "value": ValueError("the layout has 60 values, expected 76"),
            "import": ImportError("pip install --no-deps -r requirements-sim.txt"),
            "folder": PermissionError(13, "Permission denied", "/somewhere"),
            "work": RuntimeError("it broke"),
            "stop": KeyboardInterrupt(),
        }
        if self.fail:
            raise errors[self.fail]
        print("done", self.count)


@pytest.fixture(autouse=True)
def probe(monkeypatch):
    monkeypatch.delenv("DIFFDECIDE_TRACEBACK", raising=False)
    monkeypatch.setitem(sys.modules, "diffdecide.app.cli.run", types.SimpleNamespace(COMMAND=Probe))
    monkeypatch.setitem(sys.modules, "diffdecide.app.cli.train", types.SimpleNamespace(COMMANDS={"probe": Probe}))


@pytest.mark.parametrize(
    ("fail", "code", "message"),
    [
        ("value", 2, "error: the layout has 60 values, expected 76\n"),
        ("import", 2, "requirements-sim.txt"),
        ("folder", 2, "Permission denied: /somewhere"),
        ("work", 1, "it broke"),
        ("stop", 130, "interrupted"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(fail, code, message, capsys):
    assert cli.main(["run", "--fail", fail]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1


def test_options_are_parsed_and_checked(capsys):
    assert cli.main(["run", "--count", "3"]) == 0
    assert "done 3" in capsys.readouterr().out
    assert cli.main(["run", "--count", "-1"]) == 2
    assert "count must be >= 0" in "".join(capsys.readouterr())
    assert cli.main(["run", "--cuont", "1"]) == 2
    assert "--count" in "".join(capsys.readouterr())


def test_groups_list_their_commands(capsys):
    assert cli.main(["train", "--help"]) == 0
    assert "probe  A command that fails on demand." in capsys.readouterr().out
    assert cli.main(["train", "probe"]) == 0
    assert cli.main(["train", "prob"]) == 2
    assert "did you mean `probe`" in capsys.readouterr().err


def test_unknown_commands_get_a_guess(capsys):
    assert cli.main(["evalute"]) == 2
    assert "did you mean `evaluate`" in capsys.readouterr().err


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.SUMMARIES)
    assert cli.main([]) == 2


def test_tracebacks_on_request(monkeypatch):
    monkeypatch.setenv("DIFFDECIDE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="60 values"):
        cli.main(["run", "--fail", "value"])


def test_help_and_package_imports_load_nothing_heavy():
    code = (
        "import sys, safety, diffdecide, lm_bridge, reward_models\n"
        "from diffdecide.app.cli.main import main\n"
        "main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'mujoco', 'gymnasium', 'scipy', 'matplotlib'}\n"
        "sys.exit(f'loaded {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

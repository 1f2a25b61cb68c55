"""The wheel works outside the checkout, and the documents say what is true."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # The sources are copied, as a build leaves a build/ folder beside them.
    source = folder / "source"
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = [name for name in listing.stdout.splitlines() if not name.startswith(("tests/", "benchmarks/", "docs/"))]
    assert names, "the tests need the git checkout to know what belongs to the sources"
    for name in names:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment that has the wheel, and this environment's packages but not this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(folder / "venv")
    site = next((folder / "venv").glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)  # a wheel of pure Python is installed by unpacking
    # Appended behind the wheel's own folder, and .pth files in it (the editable checkout) are not read.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "venv" / "bin" / "python"

    def run(*words, timeout=300):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [str(python), "-m", "diffdecide.app", *words]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)

    run.python, run.folder = python, folder
    return run


@pytest.mark.wheel
def test_the_wheel_holds_the_packages_and_their_data_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "safety", "diffdecide", "lm_bridge", "reward_models",
    }  # fmt: skip
    assert any(name.endswith("licenses/LICENSE") for name in names)
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    for name in listing:  # whatever lies in a package belongs to it, models and phrases included
        if name.split("/")[0] in tops:
            assert name in names, f"{name} is missing in the wheel"


@pytest.mark.wheel
def test_the_installed_command_runs_outside_the_checkout(installed):
    where = subprocess.run(
        [str(installed.python), "-c", "import safety; print(safety.__file__)"],
        cwd=installed.folder, capture_output=True, text=True,
    )  # fmt: skip
    assert str(installed.folder) in where.stdout
    assert installed("--version").stdout.startswith("diffdecide ")
    options = ["--planner", "proportional", "--episodes", "1", "--max-steps", "5"]
    result = installed("evaluate", "--env", "SafetyPointGoal1-v0", *options)
    assert result.returncode == 0, result.stderr


@pytest.mark.wheel
def test_the_wheel_turns_a_sentence_into_a_rollout(installed):
    if not (ROOT / "diffdecide/app/cli/run.py").exists():
        pytest.skip("this checkout has no `run` command yet")
    result = installed("run", "go to the green zone", "--out", "out")
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (installed.folder / "out").iterdir()} >= {"summary.json", "rollout.gif", "plan.png"}


def test_every_pin_is_inside_the_range_that_is_promised():
    from packaging.requirements import Requirement
    from packaging.version import Version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert Version(pins[name]) in requirement.specifier, text


def test_what_the_simulator_pins_is_left_to_its_own_file():
    names = (ROOT / "pyproject.toml").read_text()
    dependencies = " ".join(tomllib.loads(names)["project"]["dependencies"])
    for package in ("safety-gymnasium", "gymnasium-robotics", "torchvision"):
        assert package not in dependencies
        assert package not in (ROOT / "constraints.txt").read_text()
    assert "safety-gymnasium==1.0.0" in (ROOT / "requirements-sim.txt").read_text()


def _documents():
    return [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]


# architecture.md shows signatures, which are no programs.
@pytest.mark.parametrize(
    "path", [path for path in _documents() if path.name != "architecture.md"], ids=lambda path: path.name
)
def test_python_blocks_in_documents_run(path, tmp_path, monkeypatch):
    import mktestdocs

    monkeypatch.chdir(tmp_path)  # blocks may write files
    mktestdocs.check_md_file(path, memory=True)


@pytest.mark.parametrize("path", _documents(), ids=lambda path: path.name)
def test_commands_in_documents_exist(path):
    from diffdecide.app.cli.main import SUMMARIES

    makefile = (ROOT / "Makefile").read_text()
    for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", path.read_text(), flags=re.S):
        for name in re.findall(r"^\s*\$?\s*diffdecide (\w+)", block, flags=re.M):
            assert name in SUMMARIES
        for target in re.findall(r"^\s*\$?\s*make (\w+)", block, flags=re.M):
            assert re.search(rf"^{target}:", makefile, flags=re.M), target

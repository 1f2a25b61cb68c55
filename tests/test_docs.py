"""README and docs: links lead somewhere, blocks that need the embedded models run, nothing names a machine.

Plain Python blocks and commands are checked in tests/app/test_packaging.py. Blocks marked `py` need trained models.
"""

import re
from pathlib import Path

import pytest

from diffdecide.app.embedded import PLANNERS, bridge_folder, planner_folder

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Made from benchmark runs and demo runs, so they may come after the code.
MADE_LATER = {"docs/images/rollout.gif", "docs/results.md"}


def with_name(path):
    return path.name


@pytest.mark.parametrize("path", DOCUMENTS, ids=with_name)
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("#"):
            continue
        file = (path.parent / target.partition("#")[0]).resolve()
        if file.relative_to(ROOT).as_posix() not in MADE_LATER:
            assert file.exists(), f"{path.name} links to {target}"


def test_examples_stay_short():
    for path in (ROOT / "examples").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 100, path.name


def test_every_place_for_results_is_closed():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    opened, closed = (re.findall(rf"<!-- {mark}results:([\w-]+) -->", text) for mark in ("", "/"))
    assert opened == closed
    assert opened


@pytest.mark.parametrize("path", DOCUMENTS, ids=with_name)
def test_every_block_says_what_it_is(path):
    fences = re.findall(r"^```(\w*)", path.read_text(encoding="utf-8"), flags=re.M)
    known = {"", "python", "py", "bash", "json"}
    assert set(fences) <= known


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if "```py\n" in path.read_text(encoding="utf-8")], ids=with_name
)
def test_blocks_that_need_the_embedded_models_run(path, tmp_path, monkeypatch):
    import mktestdocs

    folders = [planner_folder(env_id) / "planner.json" for env_id in PLANNERS if "Point" in env_id]
    if not all(file.is_file() for file in [*folders, bridge_folder("default") / "bridge.safetensors"]):
        pytest.skip("this checkout has no embedded models yet: `make pretrained` makes them")
    monkeypatch.chdir(tmp_path)
    mktestdocs.register_executor("py", mktestdocs.__main__.exec_python)
    mktestdocs.check_md_file(path, memory=True, lang="py")


def test_nothing_that_is_packaged_names_a_folder_of_the_machine_it_was_made_on():
    for package in ("safety", "diffdecide", "lm_bridge", "reward_models"):
        for file in (ROOT / package).rglob("*.json"):
            found = re.findall(r'"/\w+/[^"]*"', file.read_text(encoding="utf-8"))
            assert not found, f"{file.relative_to(ROOT)} holds {found}"

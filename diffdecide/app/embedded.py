"""Where the embedded default models live."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent / "pretrained"

# One planner per agent serves both of its tasks.
PLANNERS = {
    "SafetyPointGoal1-v0": "point",
    "SafetyPointZones1-v0": "point",
    "SafetyCarGoal1-v0": "car",
    "SafetyCarZones1-v0": "car",
}

# What they drive in without having been trained for it: tasks told as driving, see `safety.tasks.driving`.
OTHER_TASKS = {
    f"Safety{agent.title()}{task}-v0": agent
    for agent in ("point", "car")
    for task in ("Goal2", "Button1", "Button2", "Push1", "Push2", "Circle1", "Circle2")
}
FOLDERS = PLANNERS | OTHER_TASKS


def planner_folder(name: str | Path, env_id: str | None = None) -> Path:
    """The folder of a planner: a folder itself, an environment id, or "default" for that of `env_id`.

    Raises:
        ValueError: neither a folder with a planner nor an environment that has an embedded one.
    """
    folder = Path(name)
    if (folder / "planner.json").is_file():
        return folder
    key = env_id if str(name) == "default" else str(name)
    if key in FOLDERS:
        return ROOT / FOLDERS[key]
    if folder.is_dir():
        raise ValueError(f"{folder} holds no planner: expected a planner.json in it")
    known = ", ".join(FOLDERS)
    raise ValueError(f"no planner {str(name)!r}: expected a folder with a planner.json, or an environment of {known}")


def bridge_folder(name: str | Path) -> Path:
    """The folder of a bridge: a folder itself, or "default" for the embedded one."""
    return ROOT / "bridge" if str(name) == "default" else Path(name)

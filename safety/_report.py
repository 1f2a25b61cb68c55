"""What the measurements of this package put beside their figures, and how they are written."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def commit() -> str | None:
    """The checkout's commit, None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, int | str | None]:
    """Processors, Python and system."""
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` by way of a temporary file, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text)
    partial.replace(path)

"""The loss curve of a reward's training on two processes beside that of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reward_models.preferences import Preferences


def compare_processes(data: Preferences, env_id: str | None, *, steps: int) -> dict[str, Any]:
    """Train for `steps` steps on one process, and on two with half the batch each.

    Returns:
        "processes" that ran, "steps", the "largest_difference" of the losses of any step, the "last_loss" of both.
    """
    from reward_models.preference_files import write_preferences

    with tempfile.TemporaryDirectory() as folder:
        path = write_preferences(data, Path(folder) / "pairs.parquet")
        curves = {n: loss_curve(path, Path(folder) / str(n), env_id, processes=n, steps=steps) for n in (1, 2)}
    one, two = (np.array(curves[n]) for n in (1, 2))
    if len(one) != steps or len(two) != steps:
        raise RuntimeError(f"expected {steps} losses of each run, got {len(one)} and {len(two)}")
    return {
        "processes": sorted(curves),
        "steps": steps,
        "largest_difference": float(np.abs(one - two).max()),
        "first_loss": [float(one[0]), float(two[0])],
        "last_loss": [float(one[-1]), float(two[-1])],
    }


def loss_curve(
    data: Path,
    out: Path,
    env_id: str | None,
    *,
    processes: int,
    steps: int,
    batch: int = 64,
    extra: Sequence[str] = (),
) -> list[float]:
    """Losses of each step of a training run on `processes` CPU processes that share the batch.

    Raises:
        RuntimeError: the run failed, or fewer processes ran than were asked for.
    """
    from diffdecide.checkpoints import checkpoint_paths, load_checkpoint

    words = ["-m", "diffdecide.app", "train", "reward", str(data), "--out", str(out), *extra]
    words += [] if env_id is None else ["--env", env_id]
    words += ["--steps", str(steps), "--batch-size", str(batch // processes), "--log-every", "1", "--device", "cpu"]
    words += ["--eval-every", "0", "--members", "2", "--tracker", "None", "--no-progress"]
    launcher = [sys.executable]
    if processes > 1:
        # Standalone finds a free port; a master port of 0 is taken literally and waits for ever.
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment: Mapping[str, str] = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*launcher, *words], env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise RuntimeError(f"training on {processes} processes failed: {done.stderr[-800:]}")
    # The rows of a step are the batch of one process times the processes that ran: two half batches, not one.
    rows = load_checkpoint(checkpoint_paths(out / "checkpoints")[-1]).meta["rows"]
    if rows != batch:
        raise RuntimeError(f"expected {processes} processes with {batch} rows a step in all, got {rows} rows")
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line) for line in lines]
    return [float(line["loss"]) for line in losses if "loss" in line]

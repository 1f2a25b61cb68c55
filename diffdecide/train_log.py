"""The record of a training run: means between two lines, as jsonl and to accelerate's trackers."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor


class TrainLog:
    """Means between two log lines, to `metrics.jsonl` and the tracker."""

    def __init__(self, path: Path, start: int, accelerator: Accelerator) -> None:
        self.path, self.accelerator = path, accelerator
        self.sums: dict[str, Tensor] = {}
        self.count, self.clock = 0, time.perf_counter()
        self.line: dict[str, float] = {}
        if accelerator.is_main_process:
            forget_after(path, start)

    def add(self, parts: Mapping[str, Tensor], norm: Tensor | None) -> None:
        self.count += 1
        for name, part in (parts if norm is None else {**parts, "grad_norm": norm}).items():
            part = part.detach().float()
            self.sums[name] = part if name not in self.sums else self.sums[name] + part

    def write(self, step: int, rate: float) -> dict[str, float]:
        """Write the means of the steps since the last line."""
        means = self.accelerator.reduce(torch.stack([self.sums[name] for name in self.sums]) / self.count, "mean")
        line = dict(zip(self.sums, means.tolist(), strict=True))
        now = time.perf_counter()
        line |= {"learning_rate": rate, "steps_per_second": self.count / (now - self.clock)}
        self.sums, self.count, self.clock = {}, 0, now
        if not math.isfinite(line["loss"]):
            raise FloatingPointError(f"the loss is {line['loss']} at step {step}; lower the learning rate")
        self.record(step, line)
        return line

    def record(self, step: int, line: Mapping[str, float]) -> None:
        self.line = {**self.line, **line, "step": step}
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **line}) + "\n")
        if self.accelerator.trackers:
            self.accelerator.log(dict(line), step=step)


def forget_after(path: Path, step: int) -> None:
    """Drop the log lines behind `step`, which a resumed run writes again, and a half-written last line."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text().splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)

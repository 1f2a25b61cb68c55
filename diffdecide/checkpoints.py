"""One checkpoint, one safetensors file: weights, averaged weights, optimizer state. Written whole or not at all."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = "diffdecide-checkpoint-1"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another run."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        path: the file it was read from.
        tensors: name -> tensor.
        meta: plain values (step, configuration, ...).
    """

    path: Path
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def checkpoint_paths(folder: Path) -> list[Path]:
    """Finished checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step_*.safetensors"))


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], *, keep: int
) -> Path:
    """Write `step_XXXXXXXX.safetensors` into `folder` by way of a temporary file and remove all but `keep` files.

    Raises:
        OSError: the folder cannot be written; earlier checkpoints are then untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "crc32": str(_crc(plain)), "meta": json.dumps(dict(meta), sort_keys=True)}
    path = folder / f"step_{step:08d}.safetensors"
    temporary = path.with_suffix(".tmp")
    try:
        save_file(plain, temporary, metadata=header)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    for old in checkpoint_paths(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its check sum.

    Raises:
        CheckpointError: the file is truncated, altered, or not a checkpoint; it names the file and what to do.
    """
    advice = "remove this file to resume from an earlier checkpoint, or start anew with overwrite=True"
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error}); {advice}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT}, but {header.get('format')!r}; {advice}")
    if str(_crc(tensors)) != header["crc32"]:
        raise CheckpointError(f"checkpoint {path} is corrupt: its check sum does not fit; {advice}")
    return Checkpoint(path, tensors, json.loads(header["meta"]))


def _crc(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        content = tensors[name].reshape(-1).view(torch.uint8) if tensors[name].numel() else torch.empty(0)
        total = zlib.crc32(content.numpy().tobytes(), zlib.crc32(name.encode(), total))
    return total

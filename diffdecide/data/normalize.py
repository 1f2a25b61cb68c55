"""Per-dimension normalisation that travels with the model.

A `Normalizer` is a module with buffers and no parameters: it moves with the model, is saved in its safetensors file,
and works on numpy arrays as well, so that data preparation and planning share one piece of arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

Mode = Literal["standard", "minmax", "identity"]


class Normalizer(nn.Module):
    """y = clip((x - offset) / scale), one offset and scale per dimension of the last axis.

    - "standard": offset = mean, scale = standard deviation
    - "minmax": the range of the data becomes [-1, 1]
    - "identity": offset 0, scale 1

    A dimension that is constant in the data gets scale 1: it normalises to 0, and an unseen value is neither amplified
    nor lost. A new object is the identity, ready for `load_state_dict`.

    Args:
        dim: number of dimensions D, >= 1
        clip: normalised values are clipped to [-clip, clip]; None for no clipping
    """

    offset: Tensor  # [D]
    scale: Tensor  # [D] > 0
    limit: Tensor  # [] clip, infinity for none

    def __init__(self, dim: int, *, clip: float | None = None) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim: expected >= 1, got {dim}")
        if clip is not None and not clip > 0:
            raise ValueError(f"clip: expected > 0 or None, got {clip}")
        self.register_buffer("offset", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("limit", torch.tensor(math.inf if clip is None else float(clip)))

    @property
    def dim(self) -> int:
        return self.offset.shape[0]

    @property
    def clip(self) -> float | None:
        limit = float(self.limit)
        return None if math.isinf(limit) else limit

    @classmethod
    def fit(
        cls, data: np.ndarray, *, mode: Mode = "standard", clip: float | None = None, eps: float = 1e-6
    ) -> Normalizer:
        """Statistics of `data` [..., D] (at least one row, finite).

        Args:
            mode: see the class
            eps: a spread below `eps` (relative to the size of the values) counts as constant
        """
        array = np.asarray(data, dtype=np.float64)
        if array.ndim < 1 or array.size == 0:
            raise ValueError(f"data: expected [..., D] with at least one row, got shape {array.shape}")
        rows = array.reshape(-1, array.shape[-1])
        if not np.isfinite(rows).all():
            column = int(np.argwhere(~np.isfinite(rows))[0, 1])
            raise ValueError(f"data: expected finite values, got a NaN or infinity in dimension {column}")
        if mode == "standard":
            offset, spread = rows.mean(0), rows.std(0)
        elif mode == "minmax":
            low, high = rows.min(0), rows.max(0)
            offset, spread = (low + high) / 2, (high - low) / 2
        elif mode == "identity":
            offset, spread = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        else:
            raise ValueError(f"mode: expected 'standard', 'minmax' or 'identity', got {mode!r}")
        scale = np.where(spread > eps * np.maximum(1.0, np.abs(offset)), spread, 1.0)
        return cls._of(offset, scale, clip)

    @classmethod
    def _of(cls, offset: np.ndarray, scale: np.ndarray, clip: float | None) -> Normalizer:
        result = cls(len(offset), clip=clip)
        result.offset.copy_(torch.as_tensor(offset))
        result.scale.copy_(torch.as_tensor(scale))
        return result

    @overload
    def normalize(self, value: np.ndarray) -> np.ndarray: ...
    @overload
    def normalize(self, value: Tensor) -> Tensor: ...
    def normalize(self, value: Any) -> Any:
        """[..., D] -> [..., D], numpy to numpy (float32), torch to torch (the value's dtype); NaN stays NaN."""
        offset, scale, limit = self._like(value)
        return ((value - offset) / scale).clip(-limit, limit)

    @overload
    def denormalize(self, value: np.ndarray) -> np.ndarray: ...
    @overload
    def denormalize(self, value: Tensor) -> Tensor: ...
    def denormalize(self, value: Any) -> Any:
        """The inverse of `normalize` (up to clipping), [..., D] -> [..., D]."""
        offset, scale, _ = self._like(value)
        return value * scale + offset

    def forward(self, value: Tensor) -> Tensor:
        return self.normalize(value)

    def _like(self, value: Any) -> tuple[Any, Any, Any]:
        if value.ndim < 1 or value.shape[-1] != self.dim:
            raise ValueError(f"value: expected [..., {self.dim}], got shape {tuple(value.shape)}")
        if isinstance(value, Tensor):
            dtype = value.dtype if value.dtype.is_floating_point else self.offset.dtype
            return tuple(buffer.to(value.device, dtype) for buffer in (self.offset, self.scale, self.limit))
        return tuple(buffer.detach().cpu().float().numpy() for buffer in (self.offset, self.scale, self.limit))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the inverse is `from_dict`."""
        return {"offset": self.offset.tolist(), "scale": self.scale.tolist(), "clip": self.clip}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Normalizer:
        missing = {"offset", "scale"} - set(value)
        if missing:
            raise ValueError(f"normalizer: missing keys {sorted(missing)}, got {sorted(value)}")
        offset, scale = (np.asarray(value[key], dtype=np.float64) for key in ("offset", "scale"))
        if offset.ndim != 1 or offset.shape != scale.shape:
            raise ValueError(f"normalizer: expected offset and scale [D], got {offset.shape} and {scale.shape}")
        if not (np.isfinite(offset).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError("normalizer: expected finite offsets and scales > 0")
        return cls._of(offset, scale, value.get("clip"))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, clip={self.clip}"

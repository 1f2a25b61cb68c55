"""What a filter refuses to judge: it never repairs its input, and an obstacle at NaN is not an absent one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safety.scene import Scene

Floats = NDArray[np.float64]


def checked_action(action: ArrayLike) -> Floats:
    """`action` as a fresh array [2].

    Raises:
        ValueError: it is not finite, or not of shape [2].
    """
    given = np.array(action, dtype=np.float64)
    if given.shape != (2,) or not np.isfinite(given).all():
        raise ValueError(f"the filter needs a finite action of shape (2,), got {given}")
    return given


def checked_plan(plan: NDArray[np.floating] | None) -> Floats | None:
    """`plan` [T, 2], None where there is none or it is empty.

    Raises:
        ValueError: it is not finite, or not of shape [T, 2].
    """
    if plan is None:
        return None
    given = np.asarray(plan, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != 2:
        raise ValueError(f"the filter needs a plan of shape (T, 2), got {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError("the filter needs a finite plan, got NaN or infinite actions")
    return given if len(given) else None


def check_scene(scene: Scene) -> None:
    """Raises ValueError unless everything in the scene is finite and no radius or uncertainty is negative."""
    if not np.isfinite(scene.state).all():
        raise ValueError(f"the filter needs a finite agent state, got {scene.state}")
    count = len(scene.kinds)
    for name, shape in (
        ("positions", (count, 2)),
        ("velocities", (count, 2)),
        ("radii", (count,)),
        ("sigma", (count,)),
    ):
        values = np.asarray(getattr(scene, name))
        if values.shape != shape:
            raise ValueError(f"the filter needs the scene's {name} in shape {shape}, got {values.shape}")
        # One sum finds NaN and infinities alike; which one it was matters only in the message.
        if not np.isfinite(values.sum()):
            row = int(np.flatnonzero(~np.isfinite(values.reshape(count, -1)).all(1))[0])
            raise ValueError(f"the filter needs finite {name}, got {values[row]} for object {row}")
    for name in ("radii", "sigma"):
        values = getattr(scene, name)
        if count and values.min() < 0:
            raise ValueError(f"the filter needs {name} >= 0 m, got {values.min()} for object {int(values.argmin())}")

"""Pictures of a simulated world, drawn off-screen."""

from __future__ import annotations

from typing import Any

import numpy as np


class Renderer:
    """Draws the world from above with MuJoCo's off-screen renderer; needs EGL, OSMesa or a display."""

    def __init__(self, width: int = 256, height: int = 256) -> None:
        self._size = (height, width)
        self._renderer: Any = None
        self._model: Any = None

    def draw(self, model: Any, data: Any, *, extent: float) -> np.ndarray:
        """A picture [H, W, 3] uint8 of the square of ±`extent` metres around the origin.

        Raises:
            RuntimeError: if no graphics library is at hand.
        """
        import mujoco

        if self._model is not model:  # the world was rebuilt by a reset
            self.close()
            try:
                self._renderer = mujoco.Renderer(model, *self._size)
            except Exception as error:  # every backend raises something of its own
                raise RuntimeError(
                    "this machine cannot draw off-screen: install EGL or OSMesa and set MUJOCO_GL=egl or "
                    f"MUJOCO_GL=osmesa before starting Python ({type(error).__name__}: {error})"
                ) from error
            self._model = model
        camera = mujoco.MjvCamera()
        camera.lookat[:] = 0.0
        camera.distance = 2.6 * (extent + 0.3)
        camera.azimuth, camera.elevation = 90.0, -90.0
        options = mujoco.MjvOption()
        options.geomgroup[:] = 1
        self._renderer.update_scene(data, camera, options)
        return np.asarray(self._renderer.render(), dtype=np.uint8)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = self._model = None

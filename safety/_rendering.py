"""Pictures of a world: from above and without any graphics library, or through MuJoCo where that works."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import numpy as np

from safety.scene import KINDS
from safety.truth import agent_reach, scene

SIZE = 256  # pixels per side
_RIM = 0.6  # m shown around the square in which objects are placed
_SMOOTH = 3  # drawn this much larger, then scaled down, for smooth edges

_COLOURS = {
    "goal": (110, 200, 110),
    "hazards": (130, 140, 235),
    "vases": (90, 205, 205),
    "pillars": (150, 150, 190),
    "gremlins": (150, 80, 200),
    "buttons": (245, 160, 60),
    "push_box": (225, 200, 70),
    "circle": (215, 235, 215),
    "red_zone": (235, 110, 105),
    "green_zone": (120, 200, 125),
    "blue_zone": (105, 150, 240),
    "yellow_zone": (240, 215, 90),
}
_FLOOR, _AGENT, _EDGE = (245, 243, 238), (40, 40, 45), (200, 170, 60)

_PROBE = (
    "import mujoco\n"
    "model = mujoco.MjModel.from_xml_string('<mujoco/>')\n"
    "renderer = mujoco.Renderer(model, 8, 8)\n"
    "renderer.update_scene(mujoco.MjData(model))\n"
    "renderer.render()\n"
)


@functools.cache
def can_draw() -> bool:
    """Whether MuJoCo can draw here, tried once in a process of its own: a missing driver may abort it."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def require_drawing() -> None:
    """Raises RuntimeError, saying what to install, where MuJoCo cannot draw."""
    if not can_draw():
        raise RuntimeError(
            "this machine has no OpenGL for MuJoCo's pictures: install EGL or OSMesa and set MUJOCO_GL=egl or "
            'MUJOCO_GL=osmesa before starting Python (navigation tasks draw "rgb_array" without it)'
        )


def plan_view(env: Any) -> np.ndarray:
    """The world from above [256, 256, 3] uint8: objects as discs, the agent as a disc with its heading, x to the right.

    Shows the square in which the task places things, moved along where the agent leaves it.
    """
    from PIL import Image, ImageDraw

    task = env.unwrapped.task
    world = scene(env)
    half = float(np.max(np.abs(task.placements_conf.extents))) + _RIM
    x, y, yaw = world.state[:3]
    centre = np.where(np.abs(world.state[:2]) > half, world.state[:2], 0.0)
    pixels = SIZE * _SMOOTH
    scale = pixels / (2 * half)
    picture = Image.new("RGB", (pixels, pixels), _FLOOR)
    draw = ImageDraw.Draw(picture)

    def at(px: float, py: float) -> tuple[float, float]:
        return float((px - centre[0] + half) * scale), float((half - py + centre[1]) * scale)

    def disc(px: float, py: float, radius: float, colour: tuple[int, int, int]) -> None:
        left, top = at(px - radius, py + radius)
        right, bottom = at(px + radius, py - radius)
        draw.ellipse((left, top, right, bottom), fill=colour)

    sizes = {o.name: float(getattr(o, "size", getattr(o, "radius", 0.1))) for o in task._obstacles}
    sizes["circle"] = 1.5
    flat = ("circle", "red_zone", "green_zone", "blue_zone", "yellow_zone", "goal", "hazards")
    order = sorted(range(len(world.kinds)), key=lambda row: KINDS[world.kinds[row]] not in flat)
    for row in order:
        name = KINDS[world.kinds[row]]
        disc(float(world.positions[row, 0]), float(world.positions[row, 1]), sizes[name], _COLOURS[name])
    walls = next((o for o in task._obstacles if o.name == "sigwalls"), None)
    if walls is not None:
        far, limit = 2 * half + abs(x) + abs(y), walls.locate_factor
        for sign in (-limit, limit):
            draw.line((*at(sign, -far), *at(sign, far)), fill=_EDGE, width=2 * _SMOOTH)
            if walls.num == 4:
                draw.line((*at(-far, sign), *at(far, sign)), fill=_EDGE, width=2 * _SMOOTH)
    reach = min(agent_reach(task.agent), 0.3)
    disc(x, y, 0.7 * reach, _AGENT)
    tip = (x + 1.3 * reach * np.cos(yaw), y + 1.3 * reach * np.sin(yaw))
    draw.line((*at(x, y), *at(*tip)), fill=_AGENT, width=3 * _SMOOTH)
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS), dtype=np.uint8)

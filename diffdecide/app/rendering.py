"""`rollout.gif`: the rollout from above, with the plan being followed and the places where the filter stepped in.

Drawn with Pillow at twice the size and reduced: some milliseconds a frame, where a plotting library needs a hundred.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffdecide.app.palette import (
    AGENT,
    GRID,
    INK,
    MUTED,
    PAPER,
    PLAN,
    SAFE,
    TRAIL,
    UNSAFE,
    goal_colour,
    look,
)
from diffdecide.app.recording import Frame, RolloutRecorder
from diffdecide.files import write_atomic
from safety.scene import KINDS, Scene

_OVERSAMPLE = 2
_HEADER, _FOOTER = 74, 30  # pixels
_HOLD_MS = 2000  # the last frame, before the loop begins again
_AGENT_RADIUS = 0.1  # m


def write_gif(
    recorder: RolloutRecorder, path: str | os.PathLike[str], *, size: int = 480, max_frames: int = 150
) -> Path:
    """Draw the recorded rollout as an endless animation in real time, atomically.

    Args:
        size: pixels of the square view.
        max_frames: long rollouts are thinned to this many; an intervention between two frames shows in the later one.

    Raises:
        ValueError: nothing was recorded.
        OSError: the file cannot be written.
    """
    if not recorder.frames:
        raise ValueError("no frame was recorded, so there is nothing to draw")
    if size < 64 or max_frames < 1:
        raise ValueError(f"a picture needs {size=} >= 64 and {max_frames=} >= 1")
    stride = math.ceil(len(recorder.frames) / max_frames)
    shown = list(range(0, len(recorder.frames), stride))
    if shown[-1] != len(recorder.frames) - 1:
        shown.append(len(recorder.frames) - 1)
    stage = _Stage(recorder, size)
    pictures = [stage.draw(index, since=shown[k - 1] + 1 if k else 0) for k, index in enumerate(shown)]
    # One palette for all frames, from three that hold every colour: else the colours flicker.
    sample = np.concatenate([np.asarray(pictures[k]) for k in sorted({0, len(pictures) // 2, len(pictures) - 1})])
    palette = Image.fromarray(sample).quantize(colors=200, method=Image.Quantize.MEDIANCUT)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    # GIF counts in hundredths of a second, and viewers slow down what is faster than 20 ms.
    delay = max(20, 10 * round(100 * recorder.dt * stride))

    def write(temporary: Path) -> None:
        frames[0].save(
            temporary,
            save_all=True,
            append_images=frames[1:],
            duration=[delay] * (len(frames) - 1) + [_HOLD_MS],
            loop=0,
            optimize=False,
        )

    return write_atomic(path, write)


class _Stage:
    """The view, its fixed floor, and what is drawn on it."""

    def __init__(self, recorder: RolloutRecorder, size: int) -> None:
        self.recorder = recorder
        self.size = size
        self.path = np.array([frame.scene.state[:2] for frame in recorder.frames])
        first = recorder.frames[0].scene
        objects = first.positions if len(first.positions) else self.path[:1]
        reach = float(first.radii.max()) if len(first.radii) else 0.2
        low = np.minimum(objects.min(axis=0) - reach, self.path.min(axis=0)) - 0.25
        high = np.maximum(objects.max(axis=0) + reach, self.path.max(axis=0)) + 0.25
        self.centre = (low + high) / 2
        self.extent = float(np.max(high - low))  # m across the view
        self.scale = size * _OVERSAMPLE / self.extent  # pixels per metre
        # Circles' walls and pushed boxes move the floor's objects; fixed ones are drawn once.
        moving = {
            int(kind)
            for frame in recorder.frames
            if len(frame.scene.positions) == len(first.positions)
            for kind in first.kinds[np.any(np.abs(frame.scene.positions - first.positions) > 1e-4, axis=1)]
        }
        self.fixed = [index for index, kind in enumerate(first.kinds) if int(kind) not in moving]
        self.moving_kinds = moving
        self.floor = self._floor(first)

    def xy(self, point: np.ndarray) -> tuple[float, float]:
        half = self.size * _OVERSAMPLE / 2
        return (
            half + float(point[0] - self.centre[0]) * self.scale,
            half - float(point[1] - self.centre[1]) * self.scale,
        )

    def _floor(self, scene: Scene) -> Image.Image:
        pixels = self.size * _OVERSAMPLE
        image = Image.new("RGB", (pixels, pixels), PAPER)
        canvas = ImageDraw.Draw(image)
        half = self.extent / 2
        for axis in (0, 1):
            for line in np.arange(math.ceil((self.centre[axis] - half) * 2) / 2, self.centre[axis] + half, 0.5):
                spot = self.xy(np.array([line, line]))[axis]
                ends = ((spot, 0), (spot, pixels)) if axis == 0 else ((0, spot), (pixels, spot))
                canvas.line(ends, fill=GRID, width=_OVERSAMPLE)
        self._objects(canvas, scene, self.fixed)
        return image

    def _objects(self, canvas: ImageDraw.ImageDraw, scene: Scene, indices: Sequence[int]) -> None:
        for index in sorted(indices, key=lambda i: look(KINDS[scene.kinds[i]]).order):
            kind = KINDS[scene.kinds[index]]
            style, centre, radius = look(kind), scene.positions[index], float(scene.radii[index])
            hollow = kind == "circle"
            self._disc(canvas, centre, radius, None if hollow else style.fill, style.edge, 2)
            if kind in ("hazards", "pillars", "gremlins"):
                self._dashes(canvas, centre, radius + self.recorder.margin, style.edge)
            elif kind in self.recorder.forbidden:
                self._dashes(canvas, centre, radius + self.recorder.margin, UNSAFE)
                for corner in (np.array([1.0, 1.0]), np.array([1.0, -1.0])):
                    stroke = np.array([centre - 0.707 * radius * corner, centre + 0.707 * radius * corner])
                    self._line(canvas, stroke, UNSAFE, 1.5)
            if kind.endswith("_zone") or kind == "goal":
                canvas.text(
                    self.xy(centre), style.label, fill=style.edge, font=_font(12 * _OVERSAMPLE, True), anchor="mm"
                )

    def _disc(
        self,
        canvas: ImageDraw.ImageDraw,
        centre: np.ndarray,
        radius: float,
        fill: str | None,
        edge: str | None,
        width: float,
    ) -> None:
        x, y = self.xy(centre)
        r = radius * self.scale
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=edge, width=round(width * _OVERSAMPLE))

    def _dashes(self, canvas: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, colour: str) -> None:
        x, y = self.xy(centre)
        r = radius * self.scale
        for angle in range(0, 360, 24):
            canvas.arc((x - r, y - r, x + r, y + r), angle, angle + 11, fill=colour, width=_OVERSAMPLE)

    def _line(self, canvas: ImageDraw.ImageDraw, points: np.ndarray, colour: str, width: float) -> None:
        if len(points) > 1:
            canvas.line([self.xy(p) for p in points], fill=colour, width=round(width * _OVERSAMPLE), joint="curve")

    def draw(self, index: int, *, since: int) -> Image.Image:
        """The picture after frame `index`; interventions from frame `since` on are flashed."""
        frame = self.recorder.frames[index]
        image = self.floor.copy()
        canvas = ImageDraw.Draw(image)
        moving = [i for i, kind in enumerate(frame.scene.kinds) if int(kind) in self.moving_kinds]
        self._objects(canvas, frame.scene, moving)
        self._line(canvas, self.path[: index + 1], TRAIL, 2.5)
        for earlier in range(index + 1):
            if self.recorder.frames[earlier].intervened:
                self._disc(canvas, self.path[earlier], 0.028, UNSAFE, None, 0)
        stepped_in = any(self.recorder.frames[k].intervened for k in range(since, index + 1))
        here = frame.scene.state[:2]
        if frame.plan is not None and len(frame.plan):
            plan = np.vstack([here, frame.plan])
            self._line(canvas, plan, PLAN, 2.5)
            for point in plan[1 :: max(1, len(plan) // 8)]:
                self._disc(canvas, point, 0.022, PLAN, None, 0)
            self._disc(canvas, plan[-1], 0.04, PAPER, PLAN, 1.5)
        if stepped_in:
            self._disc(canvas, here, _AGENT_RADIUS + 0.09, None, UNSAFE, 3)
        self._agent(canvas, frame.scene.state)
        view = image.reduce(_OVERSAMPLE)
        page = Image.new("RGB", (self.size, self.size + _HEADER + _FOOTER), "white")
        page.paste(view, (0, _HEADER))
        self._caption(ImageDraw.Draw(page), frame, stepped_in, last=index == len(self.recorder.frames) - 1)
        return page

    def _agent(self, canvas: ImageDraw.ImageDraw, state: np.ndarray) -> None:
        yaw = float(state[2]) + self.recorder.forward_offset
        centre = state[:2]

        def at(angle: float, radius: float) -> tuple[float, float]:
            return self.xy(centre + radius * np.array([math.cos(yaw + angle), math.sin(yaw + angle)]))

        self._disc(canvas, centre, _AGENT_RADIUS, AGENT, "white", 1.5)
        canvas.polygon([at(0.0, 0.085), at(2.4, 0.062), at(math.pi, 0.02), at(-2.4, 0.062)], fill="white")

    def _caption(self, canvas: ImageDraw.ImageDraw, frame: Frame, stepped_in: bool, *, last: bool) -> None:
        recorder, width = self.recorder, self.size
        for row, text in enumerate(_wrapped(f"“{recorder.instruction}”", _font(14, True), width - 24, 2)):
            canvas.text((12, 8 + 18 * row), text, fill=INK, font=_font(14, True))
        x, y = 12.0, 58.0
        for number, name in enumerate(recorder.goals):
            done, active = number < frame.current, number == frame.current
            colour = goal_colour(name)
            canvas.ellipse(
                (x, y - 6, x + 12, y + 6), fill=colour if done or active else "white", outline=colour, width=2
            )
            if done:
                canvas.line([(x + 3, y), (x + 5.5, y + 3), (x + 9.5, y - 3)], fill="white", width=2)
            text = name if not active else f"{name} …"
            canvas.text((x + 17, y), text, fill=INK if active else MUTED, font=_font(12, active), anchor="lm")
            x += 17 + canvas.textlength(text, font=_font(12, active)) + 14
        if last and recorder.outcome is not None:
            good = recorder.outcome.startswith("succeeded")
            canvas.text(
                (width - 12, y), recorder.outcome, fill=SAFE if good else UNSAFE, font=_font(12, True), anchor="rm"
            )
        elif stepped_in:
            label = "filter stepped in"
            left = width - 24 - canvas.textlength(label, font=_font(12, True))
            canvas.rounded_rectangle((left - 4, y - 10, width - 8, y + 10), radius=10, fill=UNSAFE)
            canvas.text((width - 16, y), label, fill="white", font=_font(12, True), anchor="rm")
        y = self.size + _HEADER + _FOOTER / 2
        canvas.text(
            (12, y), f"step {frame.step}   {frame.step * recorder.dt:.1f} s", fill=MUTED, font=_font(12), anchor="lm"
        )
        if frame.clearance is not None and math.isfinite(frame.clearance):
            near = frame.clearance < recorder.margin
            text = f"clearance {frame.clearance:.2f} m"
            canvas.text((width / 2, y), text, fill=UNSAFE if near else MUTED, font=_font(12), anchor="mm")
        text = f"cost {frame.cost:g}"
        canvas.text((width - 12, y), text, fill=UNSAFE if frame.cost > 0 else SAFE, font=_font(12, True), anchor="rm")


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: more scripts than Pillow's own, and the same on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float, rows: int) -> list[str]:
    """`text` in at most `rows` lines of at most `width` pixels, with an ellipsis where it is longer."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) < rows:
            lines.append(word)
        else:
            lines[-1] += " …"
            break
    for row, line in enumerate(lines):
        while line and font.getlength(line) > width:  # a word longer than the line, or the ellipsis
            line = line[:-2] + "…" if len(line) > 2 else ""
        lines[row] = line
    return lines

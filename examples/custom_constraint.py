"""A constraint of one's own: an ellipse to stay out of, as any differentiable function, and what can be done with it.

`Barrier` gives a function its linearisation by autograd; `project` moves points to the nearest allowed ones. A disc
that the robot shall not enter goes into the filter directly.
"""

import numpy as np
import torch
import tyro

from safety.constraints import Ball, Barrier
from safety.dynamics import dynamics_for
from safety.filters import SafetyFilter
from safety.projection import project
from safety.scene import Scene


def outside_ellipse(x: torch.Tensor) -> torch.Tensor:
    """Metres or less [...] from points [..., 2] to an ellipse of 0.6 m by 0.3 m at the origin; >= 0 is outside."""
    axes = torch.tensor([0.6, 0.3], dtype=x.dtype)
    scaled = (x / axes).norm(dim=-1)
    return (scaled - 1) * axes.min()


def correct_path() -> None:
    """Bend a straight path around the ellipse."""
    ellipse = Barrier(outside_ellipse)
    path = np.stack([np.linspace(-1, 1, 11), np.full(11, 0.05)], axis=-1)  # [T, 2] m, right through it
    corrected = path
    for _ in range(5):  # the constraint is curved: linearise and correct a few times
        rows = ellipse.linearise(corrected)
        corrected = project(path, rows.A, rows.b).require()
    print(f"path through the ellipse: worst value {ellipse.value(path).min():+.3f} m")
    print(f"corrected:                worst value {ellipse.value(corrected).min():+.3f} m")


def keep_out(steps: int) -> None:
    """Full speed ahead, with a forbidden disc 1 m ahead that no sensor sees: the filter brakes in front of it."""
    dynamics = dynamics_for("point")
    disc = Ball(center=(1.0, 0.0), radius=0.3, margin=0.05)
    shield = SafetyFilter(dynamics, margin=0.03)
    state, nearest = np.zeros(6), np.inf
    for _ in range(steps):
        report = shield.filter(Scene(state=state), np.array([1.0, 0.0]), soft=[disc])
        state = dynamics.rollout(state, report.action[None])[0]
        nearest = min(nearest, float(disc.value(state[:2])))
    print(f"filter: nearest to the forbidden disc's margin {nearest:+.3f} m, now at rest at x = {state[0]:.2f} m")


def main(steps: int = 150) -> None:
    """Correct a path, then filter a drive.

    Args:
        steps: control steps of the drive (0.02 s each).
    """
    correct_path()
    keep_out(steps)


if __name__ == "__main__":
    tyro.cli(main)

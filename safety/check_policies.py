"""Policies that the filter is checked with, on ground truth: they know more than the filter does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from safety.buttons import without_goal_button
from safety.caution import PLAN_EXTRA
from safety.controllers.circle import CircleJudge
from safety.controllers.mpc import MPCConfig, SamplingMPC
from safety.controllers.objective import SubGoal
from safety.dynamics import Dynamics, dynamics_for
from safety.layout import EnvSpec
from safety.scene import KIND_ID, Scene
from safety.walls import CIRCLE_LIMIT, Walls

Floats = NDArray[np.float64]
# True scene -> action [2] and what is meant to follow [T, 2], if anything is.
CheckPolicy = Callable[[Scene], tuple[Floats, Floats | None]]
POLICIES = ("random", "adversarial", "mpc", "mpc-free")
HOLD = 10  # steps for which a random command is held: white noise hardly moves a body with inertia
# Half the candidates and plans of the ceiling: the difference that a filter makes is what counts here.
QUICK = {"candidates": 150, "replan": 4}


def make_policy(name: str, spec: EnvSpec, *, seed: int, margin: float) -> CheckPolicy:
    """One episode's policy. `margin` [m] is the filter's: behind it the MPC keeps a little more, free its own.

    Raises:
        ValueError: an unknown name.
    """
    dynamics = dynamics_for(spec.agent)
    if name == "random":
        return _random(dynamics, seed)
    if name == "adversarial":
        walls = "sigwalls" in spec.costly
        return lambda scene: (adversarial_action(dynamics, scene, spec.costly, walls=walls), None)
    if name in ("mpc", "mpc-free"):
        return _mpc(dynamics, spec, seed, margin + PLAN_EXTRA if name == "mpc" else MPCConfig().margin)
    raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {name!r}")


def _random(dynamics: Dynamics, seed: int) -> CheckPolicy:
    generator = np.random.default_rng(seed)
    step, held = 0, np.zeros(2)

    def act(scene: Scene) -> tuple[Floats, None]:
        nonlocal step, held
        if step % HOLD == 0:
            held = np.asarray(dynamics.command(generator.uniform(-1, 1, 2)))
        step += 1
        return held, None

    return act


def _mpc(dynamics: Dynamics, spec: EnvSpec, seed: int, margin: float) -> CheckPolicy:
    controller = SamplingMPC(dynamics, MPCConfig(margin=margin, **QUICK))
    controller.reset(seed=seed)
    walls = Walls(spec).world()
    goal = SubGoal(target="goal", avoid=tuple(kind for kind in spec.costly if kind in ("vases", "pillars")))

    def act(scene: Scene) -> tuple[Floats, Floats]:
        wanted = CircleJudge(scene, walls, margin=margin) if walls else goal
        action = np.asarray(controller.act(scene, wanted), dtype=np.float64)
        return action, np.asarray(controller.rest, dtype=np.float64)

    return act


def adversarial_action(dynamics: Dynamics, scene: Scene, kinds: tuple[str, ...], *, walls: bool) -> Floats:
    """Drive at the nearest thing of `kinds` (the nearest wall in the world frame, if `walls`), at full thrust.

    The button that is the goal is left out: touching it costs nothing.
    """
    position = scene.state[:2]
    index = scene.of_kind(*(kind for kind in kinds if kind in KIND_ID)) if kinds else np.zeros(0, dtype=np.int64)
    index = without_goal_button(scene, index)
    targets = scene.positions[index]
    if walls:
        side = np.sign(position[0]) or 1.0
        targets = np.vstack([targets, [side * (CIRCLE_LIMIT + 0.5), position[1]]])
    if not len(targets):
        return np.zeros(2)
    target = targets[int(np.argmin(np.linalg.norm(targets - position, axis=1)))]
    heading = scene.state[2] + dynamics.forward_offset
    bearing = (np.arctan2(*(target - position)[::-1]) - heading + np.pi) % (2 * np.pi) - np.pi
    turn = np.float64(np.clip(2.0 * bearing, -1, 1))
    return np.asarray(dynamics.command(dynamics.motors(np.float64(max(0.0, np.cos(bearing))), turn)))

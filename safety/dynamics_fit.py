"""Fit the coefficients of `safety.dynamics` again: `python -m safety.dynamics_fit --agent point`.

Drives an agent with random motor commands on open floor, far from every object, and regresses one step on the next.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from safety import envs, truth
from safety.dynamics import Dynamics, dynamics_for

Floats = NDArray[np.float64]
_FAR = 20.0  # m beside the arena, where nothing stands


def drive(agent: str, *, episodes: int = 16, steps: int = 400, seed: int = 0) -> list[tuple[Floats, Floats]]:
    """States [T, 6] before, and motor commands [T, 2] in, each step of random driving; one pair per episode."""
    import mujoco

    model = dynamics_for(agent)
    env = envs.make(f"Safety{agent.capitalize()}Goal1-v0")
    record = []
    for episode in range(episodes):
        rng = np.random.default_rng([seed, episode])
        env.reset(seed=seed + episode)
        task = env.unwrapped.task  # type: ignore[attr-defined]
        address = task.model.joint("agent" if agent == "car" else "x").qposadr[0]
        task.data.qpos[address : address + 2] += _FAR
        mujoco.mj_forward(task.model, task.data)
        states, commands = np.zeros((steps, 6)), np.zeros((steps, 2))
        command = np.zeros(2)
        for step in range(steps):
            if rng.random() < 0.18:
                choices = (rng.uniform(-1, 1, 2), rng.choice([-1.0, 1.0], 2), rng.choice([-1.0, 0.5, 1.0]) * np.ones(2))
                command = np.asarray((*choices, np.zeros(2))[rng.integers(4)])
            states[step], commands[step] = truth.agent_state(env), command
            env.step(np.asarray(model.command(command)))
        record.append((states[3:], commands[3:]))
    return record


def regress(inputs: list[Floats], output: Floats) -> tuple[Floats, float]:
    """Least-squares weights of `inputs` (each [N]) for `output` [N], and the root mean square error."""
    table = np.stack(inputs, 1)
    weights, *_ = np.linalg.lstsq(table, output, rcond=None)
    return np.asarray(weights), float(np.sqrt(((output - table @ weights) ** 2).mean()))


def fit(model: Dynamics, record: list[tuple[Floats, Floats]]) -> dict[str, tuple[Floats, float]]:
    """Weights and errors by the names of the fields of `Dynamics` that they stand for."""
    old = np.concatenate([states[1:-1] for states, _ in record])
    new = np.concatenate([states[2:] for states, _ in record])
    command = np.concatenate([commands[1:-1] for _, commands in record])
    before = np.concatenate([states[:-2] for states, _ in record])
    rate = _wrap(new[:, 2] - old[:, 2]) / model.dt
    last_rate = _wrap(old[:, 2] - before[:, 2]) / model.dt
    middle = old[:, 2] + 0.5 * model.dt * rate + model.forward_offset
    thrust, turn = model.thrust_and_turn(command)
    forward = np.stack([np.cos(middle), np.sin(middle)], 1)
    if model.holonomic_momentum:
        speed, next_speed = model.mass_velocity(old), model.mass_velocity(new)
        ahead = [np.stack([np.cos(s[:, 2]), np.sin(s[:, 2])], 1) * model.mass_offset for s in (old, new)]
        moved = (new[:, :2] + ahead[1] - old[:, :2] - ahead[0]) / model.dt
        push = forward * thrust[:, None]
        excess = np.sign(turn) * np.maximum(np.abs(turn) - model.turn_deadband, 0)
        turning = [last_rate, turn, excess]
    else:
        speed, next_speed = model.forward_speed(old), model.forward_speed(new)
        moved = ((new[:, :2] - old[:, :2]) / model.dt * forward).sum(1)
        push, turning = thrust, [last_rate, turn]
    return {
        "decay, gain": regress([speed.ravel(), push.ravel()], next_speed.ravel()),
        "blend": regress([speed.ravel(), next_speed.ravel()], moved.ravel()),
        "turn_decay, turn_gain, turn_friction": regress(turning, rate),
    }


def _wrap(angle: Floats) -> Floats:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def main() -> None:
    """Print what the regression finds beside the name of each coefficient."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", choices=("point", "car"), default="point")
    parser.add_argument("--episodes", type=int, default=16)
    options = parser.parse_args()
    model = dynamics_for(options.agent)
    for name, (weights, error) in fit(model, drive(options.agent, episodes=options.episodes)).items():
        print(f"{name}: {', '.join(f'{weight:.4f}' for weight in weights)}   (rms error {error:.4f})")


if __name__ == "__main__":
    main()

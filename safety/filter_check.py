"""The geometric filter under policies that do not care: `python -m safety.filter_check --out FILE`.

A random policy and an adversarial one (it drives at the nearest thing that costs) act behind the guard; what they cost
is the filter's. Beside it, the time of one filtered step as a ratio to the projection alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety import envs, truth
from safety.controllers.mpc import SamplingMPC
from safety.controllers.objective import SubGoal
from safety.dynamics import Dynamics, dynamics_for
from safety.guard import GeometricGuard
from safety.scene import KIND_ID, Scene
from safety.walls import CIRCLE_LIMIT
from safety.wrappers import SafeActionWrapper

TASKS = ("SafetyPointGoal2-v0", "SafetyCarGoal1-v0", "SafetyPointCircle1-v0")
POLICIES = ("random", "adversarial", "mpc")
Floats = NDArray[np.float64]


def adversarial_action(dynamics: Dynamics, scene: Scene, kinds: tuple[str, ...], *, walls: bool) -> Floats:
    """Drive at the nearest thing of `kinds` (the nearest wall in the world frame, if `walls`), at full thrust."""
    position = scene.state[:2]
    index = scene.of_kind(*(kind for kind in kinds if kind in KIND_ID)) if kinds else np.zeros(0, dtype=np.int64)
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


def episode(
    env_id: str, policy: str, seed: int, *, margin: float, privileged: bool, max_steps: int | None = None
) -> dict[str, Any]:
    """One filtered episode, judged by the simulator.

    Raises:
        ValueError: an unknown policy or environment.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
    spec = envs.spec(env_id)
    env = envs.make(env_id, seed=seed)
    guard = GeometricGuard(spec, margin=margin, env=env if privileged else None)
    wrapped = SafeActionWrapper(env, guard)
    dynamics, generator = dynamics_for(spec.agent), np.random.default_rng(seed)
    mpc = SamplingMPC(dynamics)
    mpc.reset(seed=seed)
    held, returned, moving = np.zeros(2), 0.0, 0
    try:
        wrapped.reset(seed=seed)
        for step in range(max_steps or spec.max_steps):
            scene = truth.scene(env)
            if policy == "adversarial":
                action = adversarial_action(dynamics, scene, spec.costly, walls="sigwalls" in spec.costly)
            elif policy == "mpc":
                action = np.asarray(mpc.act(scene, SubGoal(target="goal")), dtype=np.float64)
            else:
                # Held for a while: white noise hardly moves a body with inertia.
                if step % 10 == 0:
                    held = np.asarray(dynamics.command(generator.uniform(-1, 1, 2)))
                action = held
            _, reward, terminated, truncated, _ = wrapped.step(action)
            returned += reward
            moving += float(np.hypot(*truth.scene(env).state[3:5])) > 0.05
            if terminated or truncated:
                break
        wrapped.log.end_episode()
        return {"seed": seed, "return": returned, "moving": moving / len(wrapped.log.cost), **wrapped.log.summary()}
    finally:
        env.close()


def compare(
    tasks: tuple[str, ...], policies: tuple[str, ...], episodes: int, seed: int, *, margin: float, privileged: bool
) -> list[dict[str, Any]]:
    """One row per task and policy; prints each as it comes."""
    rows = []
    for env_id in tasks:
        for policy in policies:
            if policy == "mpc" and "Goal" not in env_id:
                continue
            records = [
                episode(env_id, policy, seed + index, margin=margin, privileged=privileged) for index in range(episodes)
            ]
            costs = [record["cost"] for record in records]
            row = {
                "env": env_id,
                "policy": policy,
                "episodes": episodes,
                "mean_cost": float(np.mean(costs)),
                "max_cost": float(np.max(costs)),
                "mean_return": float(np.mean([record["return"] for record in records])),
                "infeasible_steps": int(np.sum([record["infeasible"] for record in records])),
                "interventions": int(np.sum([record["interventions"] for record in records])),
                "steps": int(np.sum([record["steps"] for record in records])),
                "records": records,
            }
            rows.append(row)
            print({key: value for key, value in row.items() if key != "records"}, flush=True)
    return rows


def timing(seed: int, repeats: int = 200) -> dict[str, float]:
    """Median processor time of a filtered step beside 8 hazards, as ratios to one DAQP projection with 16 rows."""
    from safety.moving_filter import MovingFilter
    from safety.projection import project

    generator = np.random.default_rng(seed)
    dynamics = dynamics_for("point")
    filter_ = MovingFilter(dynamics)
    angles = generator.uniform(0, 2 * np.pi, 8)
    ring = np.stack([np.cos(angles), np.sin(angles)], -1) * generator.uniform(0.32, 1.0, (8, 1))

    def scene(speed: float, along: float) -> Scene:
        velocities = np.zeros((8, 2))
        velocities[0] = -along * ring[0] / np.linalg.norm(ring[0])
        kinds = np.full(8, KIND_ID["hazards"])
        return Scene(np.array([0, 0, 0, speed, 0, 0.0]), ring, velocities, kinds, np.full(8, 0.2), np.zeros(8))

    rows, bounds = generator.standard_normal((16, 2)), np.ones(16)
    forward = np.asarray(dynamics.command(np.array([1.0, 0.0])))
    cases = {
        "projection, 16 rows": lambda: project(np.ones(2), rows, bounds, method="daqp"),
        "filter, nothing to do": lambda: filter_.filter(scene(0.0, 0.0), np.zeros(2)),
        "filter, intervening": lambda: filter_.filter(scene(0.8, 0.0), forward),
        "filter, an obstacle coming": lambda: filter_.filter(scene(0.4, 0.4), forward),
    }
    seconds = {name: _median(call, repeats) for name, call in cases.items()}
    base = seconds["projection, 16 rows"]
    return {"projection_us": 1e6 * base, **{f"{name}, ratio": value / base for name, value in seconds.items()}}


def _median(call: Any, repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        # Processor time: on a busy machine the wall clock measures the others.
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times))


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--policies", nargs="+", default=["random", "adversarial"], choices=POLICIES)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=5000, help="final figures: 10000 upwards")
    parser.add_argument("--margin", type=float, default=0.03)
    parser.add_argument("--privileged", action="store_true", help="ground truth instead of decoded lidar")
    parser.add_argument("--timing", action="store_true", help="time single steps instead of driving")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    if options.episodes < 1:
        parser.error(f"--episodes must be at least 1, got {options.episodes}")
    report: dict[str, Any]
    if options.timing:
        report = {"timing": timing(options.seed)}
        print(report)
    else:
        rows = compare(
            tuple(options.tasks),
            tuple(options.policies),
            options.episodes,
            options.seed,
            margin=options.margin,
            privileged=options.privileged,
        )
        report = {"margin_m": options.margin, "privileged": options.privileged, "rows": rows}
    report |= {
        "seed": options.seed,
        "commit": _commit(),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
    }
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        partial = options.out.with_name(options.out.name + ".tmp")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        partial.replace(options.out)


if __name__ == "__main__":
    main()

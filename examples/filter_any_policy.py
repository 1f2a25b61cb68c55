"""The safety filter behind any policy: here a controller that drives at the goal and does not know what a hazard is.

Nothing privileged: the hazards are decoded from the lidars. Replace `drive_at_goal` by your own policy.
"""

import numpy as np
import tyro

from safety import envs
from safety.dynamics import Dynamics, dynamics_for
from safety.filters import SafetyFilter
from safety.perception import LidarTracker
from safety.scene import Scene


def drive_at_goal(scene: Scene, dynamics: Dynamics) -> np.ndarray:
    """An action [2] that turns to the goal and drives, through anything in between."""
    goal = scene.of_kind("goal")
    if not len(goal):
        return np.zeros(2)
    offset = scene.positions[goal[0]] - scene.state[:2]
    ahead = scene.state[2] + dynamics.forward_offset
    error = np.angle(np.exp(1j * (np.arctan2(offset[1], offset[0]) - ahead)))
    command = dynamics.motors(np.float64(np.cos(error)), np.float64(np.clip(2.0 * error, -1.0, 1.0)))
    return dynamics.command(command)


def episode(env_id: str, seed: int, steps: int, margin: float | None) -> tuple[float, float, int]:
    """Return, cost and number of corrected actions of one episode; without a margin there is no filter."""
    env, spec = envs.make(env_id), envs.spec(env_id)
    dynamics = dynamics_for(spec.agent)
    tracker = LidarTracker(spec)
    shield = None if margin is None else SafetyFilter(dynamics, margin=margin)
    observation, _ = env.reset(seed=seed)
    total, cost, corrected = 0.0, 0.0, 0
    for _ in range(min(steps, spec.max_steps)):
        scene = tracker.update(observation)
        action = drive_at_goal(scene, dynamics)
        if shield is not None:
            report = shield.filter(scene, action)
            action, corrected = report.action, corrected + report.intervened
        observation, reward, _, _, info = env.step(action)
        total, cost = total + float(reward), cost + info["cost"]
    env.close()
    return total, cost, corrected


def main(env: str = "SafetyPointGoal1-v0", seed: int = 1, steps: int = 1000, margin: float = 0.03) -> None:
    """Drive one episode without and one with the filter.

    Args:
        env: a task with a goal and hazards, for the Point or the Car.
        seed: of the layout.
        steps: control steps.
        margin: metres that the filter keeps from every hazard.
    """
    for name, kept in (("no filter", None), ("filter", margin)):
        total, cost, corrected = episode(env, seed, steps, kept)
        print(f"{name:>9}: return {total:5.1f}, cost {cost:3.0f}, {corrected} actions corrected")


if __name__ == "__main__":
    tyro.cli(main)

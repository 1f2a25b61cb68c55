"""The agent inside a control loop that is not ours: your clock, your sensors, your actuators, new orders on the way.

`Robot` stands for your system; here it wraps the simulator. All that the agent needs is an `EnvSpec` (what the numbers
of an observation mean) and one observation per control step; it returns one action with its report.
"""

import numpy as np
import tyro

from diffdecide.app.agent import Agent, AgentConfig
from safety import envs

ORDERS = {0: "head for the blue zone", 150: "now go to the yellow zone, but never enter the red one"}


class Robot:
    """Sensors and motors. Nothing but `read` and `write` is used below."""

    def __init__(self, env_id: str, seed: int) -> None:
        self.spec = envs.spec(env_id)
        self._env = envs.make(env_id)
        self._observation, _ = self._env.reset(seed=seed)
        self.collisions = 0.0

    def read(self) -> np.ndarray:
        return self._observation

    def write(self, action: np.ndarray) -> None:
        self._observation, _, _, _, info = self._env.step(action)
        self.collisions += info["cost"]


def main(
    env: str = "SafetyPointZones1-v0",
    planner: str | None = None,
    seed: int = 3,
    steps: int = 400,
    margin: float = 0.05,
) -> None:
    """Run the loop.

    Args:
        env: SafetyPointZones1-v0 or SafetyCarZones1-v0.
        planner: folder of a planner; the embedded one of the environment where none is given.
        seed: of the layout.
        steps: control steps.
        margin: metres that the filter always keeps; words can only add to it.
    """
    robot = Robot(env, seed)
    agent = Agent.from_pretrained(planner or env, config=AgentConfig(margin=margin))
    agent.reset(robot.spec, seed=seed)
    nearest, slowest = np.inf, 0.0
    for step in range(steps):
        if step in ORDERS:
            answer = agent.instruct(ORDERS[step])
            # A declined order changes nothing: the agent goes on with the one before.
            print(f"step {step}: {ORDERS[step]!r} -> {answer.reason if answer.refused else answer.spec}")
        action = agent.act(robot.read())  # cost=... where your system can tell; else the agent predicts it
        robot.write(action.value)
        report = action.report
        nearest = min(nearest, report["clearance"])
        slowest = max(slowest, report.get("plan_ms", 0.0))
        if report["infeasible"]:
            print(f"step {step}: no action keeps every margin; the least unsafe one was taken")
    scene = report["scene"]  # what the agent believes, in its own frame (origin: where it started)
    print(f"at ({scene.state[0]:.2f}, {scene.state[1]:.2f}) m with {len(scene.kinds)} objects known")
    print(
        f"least room beyond the margin {nearest:.3f} m, collisions {robot.collisions:g}, slowest plan {slowest:.1f} ms"
    )


if __name__ == "__main__":
    tyro.cli(main)

"""One sentence becomes a safe rollout, in Python, with the embedded models. Offline, on a CPU."""

import tyro

from diffdecide.app.agent import Agent
from safety import envs
from safety.tasks.spec import TaskJudge

SENTENCE = "go to the green zone, then the red one, and keep well clear of the hazards"


def main(
    text: str = SENTENCE,
    env: str = "SafetyPointZones1-v0",
    planner: str | None = None,
    seed: int = 7,
    steps: int = 500,
) -> None:
    """Follow one instruction and say how it went.

    Args:
        text: what to do, in English.
        env: SafetyPointZones1-v0 or SafetyCarZones1-v0.
        planner: folder of a planner; the embedded one of the environment where none is given.
        seed: of the layout.
        steps: control steps at most.
    """
    agent = Agent.from_pretrained(planner or env)
    agent.reset(envs.spec(env), seed=seed)
    understood = agent.instruct(text)
    if understood.refused or understood.spec is None:
        print(f"declined: {understood.reason or 'there is no goal here, only zones'}")
        return
    print(f"understood: {understood.spec.to_json()}, keeping {agent.margin:.2f} m")

    world = envs.make(env)
    observation, _ = world.reset(seed=seed)
    judge = TaskJudge(understood.spec)  # by the simulator's truth; the agent itself goes by what it decodes
    cost, corrected, taken = 0.0, 0, 0
    for _ in range(steps):
        taken += 1
        action = agent.act(observation)
        observation, _, _, truncated, info = world.step(action.value)
        cost, corrected = cost + info["cost"], corrected + action.report["intervened"]
        verdict = judge.update({zone for zone, inside in info["inside"].items() if inside})
        if verdict.succeeded or verdict.failed or truncated:
            break
    outcome = "done" if verdict.succeeded else "failed" if verdict.failed else "not finished"
    print(f"{outcome} {verdict.reason} after {taken} steps; cost {cost:g}, {corrected} actions corrected")
    world.close()


if __name__ == "__main__":
    tyro.cli(main)

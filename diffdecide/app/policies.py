"""Policies by name, as the command line knows them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffdecide.app.controllers import ControllerConfig, ControllerPolicy, PrivilegedControllerPolicy
from diffdecide.policy import Policy

if TYPE_CHECKING:
    from diffdecide.app.rewards import RewardChoice
    from safety.layout import EnvSpec

BASELINES = {
    "mpc": "sampling MPC on ground truth: the ceiling",
    "mpc-lidar": "the same MPC on positions decoded from the lidars",
    "proportional": "turns to the target and drives, from decoded positions",
    "tour": "visits all four zones in a fixed order, on ground truth",
    "random": "uniform random actions",
}
LEARNED = {
    "default": "the embedded planner of the environment",
    "bc": "the embedded cloned policy of the environment's agent",
}


def baseline_factory(name: str, *, filtered: bool, margin: float, guarded: bool = False) -> Callable[[], Policy]:
    """A picklable factory of the baseline `name`.

    Args:
        filtered: put the safety filter behind it.
        margin: metres that the filter keeps.
        guarded: a guard of the same margin will stand behind it: the MPC plans for that.

    Raises:
        ValueError: no such name, or a bad margin.
    """
    if name not in BASELINES:
        known = {**LEARNED, **BASELINES}
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown policy {name!r}{hint} (known: {', '.join(known)}, or a folder with a model)")
    controller = {"mpc-lidar": "mpc", "tour": "mpc"}.get(name, name)
    config = ControllerConfig(
        controller=controller, filtered=filtered, guarded=guarded, margin=margin, tour=name == "tour"
    )
    privileged = name in ("mpc", "tour")
    return partial(PrivilegedControllerPolicy if privileged else ControllerPolicy, config)


def policy_factory(
    name: str,
    spec: EnvSpec,
    *,
    filtered: bool,
    margin: float,
    cost_limit: float,
    reward: RewardChoice | None = None,
) -> Callable[[], Policy]:
    """A picklable factory of the policy that the command line calls `name`, checked against the environment.

    Args:
        name: a name of `LEARNED` or `BASELINES`, an environment id with an embedded planner, or a folder with one.
        spec: of the environment that the policy shall act in.
        filtered: put the safety filter behind it.
        margin: metres that the filter keeps.
        cost_limit: cost per episode that a policy with a budget plans for; baselines have none.
        reward: a learned reward that chooses among a planner's candidates.

    Raises:
        ValueError: no such policy, or it cannot act in this environment, or has no candidates for `reward`.
    """
    from diffdecide.app.guarded import GuardedFactory

    factory: Callable[[], Policy]
    if reward is not None and (not _is_learned(name) or (Path(name) / "sequence_planner.json").is_file()):
        raise ValueError(f"a reward chooses among the candidates of a planner, and {name!r} has none")
    if (Path(name) / "sequence_planner.json").is_file():
        from diffdecide.app.sequence_policy import SequencePolicy, SequencePolicyConfig

        sequence = SequencePolicyConfig(planner=name, filtered=filtered, margin=margin, cost_limit=cost_limit)
        factory = partial(SequencePolicy, sequence)
    elif _is_learned(name):
        from diffdecide.app.agent import AgentConfig
        from diffdecide.app.agent_policy import PolicyConfig, agent_policy, find_planner

        operator = AgentConfig(margin=margin, cost_limit=cost_limit, filtered=filtered)
        rewards = () if reward is None else (reward,)
        folder = str(find_planner(name, spec.id))
        factory = partial(agent_policy, PolicyConfig(planner=folder, agent=operator, rewards=rewards))
    else:
        guarded = filtered and not spec.charges_for_hazards_only
        factory = baseline_factory(name, filtered=filtered and not guarded, margin=margin, guarded=guarded)
        factory = GuardedFactory(factory, margin) if guarded else factory
    check_policy(factory, spec)
    return factory


def check_policy(factory: Callable[[], Policy], spec: EnvSpec) -> None:
    """Try a policy on an environment, so that a wrong pairing is told before any worker starts."""
    factory().reset(spec, seed=0)


def _is_learned(name: str) -> bool:
    from diffdecide.app.embedded import FOLDERS

    return name in LEARNED or name in FOLDERS or Path(name).is_dir()

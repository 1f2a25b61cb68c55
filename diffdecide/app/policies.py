"""Policies by name, as the command line knows them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from diffdecide.app.controllers import ControllerConfig, ControllerPolicy, PrivilegedControllerPolicy
from diffdecide.policy import Policy

if TYPE_CHECKING:
    from safety.layout import EnvSpec

BASELINES = {
    "mpc": "sampling MPC on ground truth: the ceiling",
    "mpc-lidar": "the same MPC on positions decoded from the lidars",
    "proportional": "turns to the target and drives, from decoded positions",
    "tour": "visits all four zones in a fixed order, on ground truth",
    "random": "uniform random actions",
}


def baseline_factory(name: str, *, filtered: bool, margin: float) -> Callable[[], Policy]:
    """A picklable factory of the baseline `name`.

    Args:
        filtered: put the safety filter behind it.
        margin: metres that the filter keeps.

    Raises:
        ValueError: no such name, or a bad margin.
    """
    if name not in BASELINES:
        close = difflib.get_close_matches(name, BASELINES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown baseline {name!r}{hint} (known: {', '.join(BASELINES)})")
    controller = {"mpc-lidar": "mpc", "tour": "mpc"}.get(name, name)
    config = ControllerConfig(controller=controller, filtered=filtered, margin=margin, tour=name == "tour")
    privileged = name in ("mpc", "tour")
    return partial(PrivilegedControllerPolicy if privileged else ControllerPolicy, config)


def policy_factory(
    name: str, spec: EnvSpec, *, filtered: bool, margin: float, cost_limit: float
) -> Callable[[], Policy]:
    """A picklable factory of the policy that the command line calls `name`, checked against the environment.

    Args:
        name: a baseline of `BASELINES`.
        spec: of the environment that the policy shall act in.
        filtered: put the safety filter behind it.
        margin: metres that the filter keeps.
        cost_limit: cost per episode that a policy with a budget plans for; baselines have none.

    Raises:
        ValueError: no such policy, or it cannot act in this environment.
    """
    factory = baseline_factory(name, filtered=filtered, margin=margin)
    # Tried here, so that a wrong pairing is told before any worker starts.
    factory().reset(spec, seed=0)
    return factory

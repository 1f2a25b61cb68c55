"""Where the time of a control step goes, on one thread, in the configuration that the evaluations use.

The headline figures come from runs without any instrument. The split comes from a second run of the same episodes in
which the parts' functions are timed; time spent in a part inside another one counts for the inner one only.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdecide.app.results import markdown_table
from diffdecide.records import portable_path, provenance

if TYPE_CHECKING:
    from diffdecide.app.agent import Agent

BARE = "network calls"
PLAN_PARTS = (
    "context encoding",
    BARE,
    "sampling overhead",
    "roll-outs",
    "ranking",
    "projection",
    "rest of the plan",
)
STEP_PARTS = ("perception", "features", "filter", "rest of the step")


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """What is timed: a planner ("default" or a folder) in an environment, on selection seeds."""

    env: str = "SafetyPointGoal1-v0"
    planner: str = "default"
    episodes: int = 2
    seed: int = 5000
    max_steps: int | None = None
    warm_up: int = 20  # control steps that are not counted, per episode

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("warm_up", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps <= self.warm_up:
            raise ValueError(f"max_steps must exceed the {self.warm_up} steps of warming up, got {self.max_steps}")


class Stopwatch:
    """Exclusive processor time by part: what a nested part takes is not counted for the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[tuple[str, float]] = []

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time charged to `part`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return timed

    def enter(self, part: str) -> None:
        now = time.thread_time()
        if self._stack:
            outer, since = self._stack[-1]
            self.seconds[outer] += now - since
        self._stack.append((part, time.thread_time()))

    def leave(self) -> None:
        now = time.thread_time()
        part, since = self._stack.pop()
        self.seconds[part] += now - since
        if self._stack:
            self._stack[-1] = (self._stack[-1][0], time.thread_time())


def measure_latency(config: LatencyConfig) -> dict[str, Any]:
    """Time plans, filter and steps in the closed loop; the result is plain values for JSON.

    `plan_ms` and `filter_ms` hold median, p95 and mean per plan and per filtered step, `step_ms` those of a control
    step, `plan_and_filter_ms_per_step` what plan and filter together take per control step on average, `parts` the
    split with ratios to the bare network calls.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from diffdecide.app.agent_policy import AgentPolicy, PolicyConfig, find_planner

    threads = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            policy = AgentPolicy(PolicyConfig(planner=str(find_planner(config.planner, config.env))))
            plain = _drive(policy.agent, config)
            watch = Stopwatch()
            with instrumented(policy.agent, watch):
                split = _drive(policy.agent, config, watch)
        finally:
            torch.set_num_threads(threads)
    steps, plans = len(split["step"]), max(1, len(split["plan"]))
    bare = watch.seconds[BARE]
    parts: dict[str, dict[str, Any]] = {}
    for part in (*PLAN_PARTS, *STEP_PARTS):
        seconds = watch.seconds.get(part, 0.0)
        parts[part] = {
            "ms_per_plan": 1e3 * seconds / plans if part in PLAN_PARTS else None,
            "ms_per_step": 1e3 * seconds / steps,
            "ratio_to_network": seconds / bare if bare else None,
        }
    together = (sum(plain["plan"]) + sum(plain["filter"])) / len(plain["step"])
    return {
        "env": config.env,
        "planner": portable_path(config.planner),
        "seeds": [config.seed, config.seed + config.episodes - 1],
        "threads": 1,
        "steps": len(plain["step"]),
        "plan_ms": _summary(plain["plan"]),
        "filter_ms": _summary(plain["filter"]),
        "step_ms": _summary(plain["step"]),
        "plan_and_filter_ms_per_step": together,
        "parts": parts,
        "plan_cpu_ms": sum(parts[part]["ms_per_plan"] for part in PLAN_PARTS),
        "load": list(os.getloadavg()),
        "configuration": policy.agent.planner.config.to_dict(),
        "meta": provenance(),
    }


def latency_table(result: dict[str, Any]) -> str:
    """The result as Markdown: headline figures, then the split."""
    lines = [
        [title, *(f"{result[key][name]:.2f}" for name in ("median", "p95", "mean"))]
        for title, key in (("a plan", "plan_ms"), ("the filter", "filter_ms"), ("a control step", "step_ms"))
        if result[key] is not None
    ]
    head = markdown_table(["ms", "median", "p95", "mean"], lines)
    split = [
        [
            part,
            None if row["ms_per_plan"] is None else f"{row['ms_per_plan']:.2f}",
            f"{row['ms_per_step']:.3f}",
            None if row["ratio_to_network"] is None else f"{row['ratio_to_network']:.2f}",
        ]
        for part, row in result["parts"].items()
    ]
    together = (
        f"\nPlan and filter together: {result['plan_and_filter_ms_per_step']:.2f} ms per control step; a plan is "
        f"{result['plan_cpu_ms']:.2f} ms of processor time.\n\n"
    )
    titles = ["part", "ms per plan", "ms per control step", "ratio to the bare network calls"]
    return head + together + markdown_table(titles, split)


@contextmanager
def instrumented(agent: Agent, watch: Stopwatch) -> Iterator[None]:
    """Time the parts of `agent` while the block runs; everything is put back afterwards.

    Functions are found by name, so that the agent itself carries no instruments. A name that is gone raises an
    AttributeError here instead of silently timing nothing.
    """
    from diffdecide import planner as module
    from safety.controllers.judge import PlanJudge

    planner = agent.planner
    targets: list[tuple[Any, str, str]] = [
        (planner, "plan", "rest of the plan"),
        (planner.model, "context", "context encoding"),
        (planner.model, "denoise", BARE),
        (module, "sample", "sampling overhead"),
        (planner, "_rollout", "roll-outs"),
        (planner, "_improve", "projection"),
        (module, "aim", "ranking"),
        (planner, "_preferred", "ranking"),
        (planner, "_valued", "ranking"),
        (PlanJudge, "__init__", "ranking"),
        (PlanJudge, "cost", "ranking"),
        (PlanJudge, "clearance", "ranking"),
        (_class(agent, "_tracker"), "update", "perception"),
        (_class(agent, "_encoder"), "encode", "features"),
        (_class(agent, "_filter"), "filter", "filter"),
        (agent, "act", "rest of the step"),
    ]
    undo = []
    try:
        for owner, name, part in targets:
            original = getattr(owner, name)
            undo.append((owner, name, original, name in vars(owner)))
            wrapped = watch.wrap(part, original)
            setattr(owner, name, wrapped)
        yield
    finally:
        for owner, name, original, own in reversed(undo):
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)


def _class(agent: Agent, name: str) -> type[Any]:
    """The class of a part that the agent makes anew at every reset."""
    from diffdecide.features import SceneEncoder
    from safety.filters import SafetyFilter
    from safety.perception import LidarTracker

    return {"_tracker": LidarTracker, "_encoder": SceneEncoder, "_filter": SafetyFilter}[name]


def _drive(agent: Agent, config: LatencyConfig, watch: Stopwatch | None = None) -> dict[str, list[float]]:
    """Milliseconds of every plan, filtering and control step behind the warm-up."""
    from diffdecide.app.zone_tasks import task_of_seed
    from safety.envs import make, spec

    env_spec = spec(config.env)
    limit = env_spec.max_steps if config.max_steps is None else min(config.max_steps, env_spec.max_steps)
    times: dict[str, list[float]] = {"plan": [], "filter": [], "step": []}
    env = make(config.env, seed=config.seed)
    try:
        for seed in range(config.seed, config.seed + config.episodes):
            observation, _ = env.reset(seed=seed)
            agent.reset(env_spec, seed=seed)
            if "red_zone_lidar" in (env_spec.layout or ()):
                agent.assign(task_of_seed(seed))
            for step in range(limit):
                before = dict(watch.seconds) if watch is not None and step < config.warm_up else None
                started = time.perf_counter()
                action = agent.act(observation)
                elapsed = 1e3 * (time.perf_counter() - started)
                observation, _, terminated, truncated, _ = env.step(action.value)
                if before is not None and watch is not None:
                    watch.seconds = defaultdict(float, before)
                if step >= config.warm_up:
                    times["step"].append(elapsed)
                    for name in ("plan", "filter"):
                        if action.report.get(f"{name}_ms") is not None:
                            times[name].append(float(action.report[f"{name}_ms"]))
                if terminated or truncated:
                    break
    finally:
        env.close()
    return times


def _summary(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "mean": float(np.mean(values)),
        "count": len(values),
    }

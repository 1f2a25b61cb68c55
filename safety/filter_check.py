"""The geometric filter under policies that do not care: `python -m safety.filter_check --out FILE`.

A random policy and an adversarial one (it drives at the nearest thing that costs) act behind the guard; what they cost
is the filter's. The MPC with and without the guard says what the filter takes from a good policy. Finished episodes are
kept in FILE: interrupt and call again. Step times are in `safety.filter_timing`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safety import envs, truth
from safety._report import commit, machine, write_whole
from safety.check_policies import POLICIES, make_policy
from safety.corruption import CorruptedLidar, LidarCorruption
from safety.guard import GeometricGuard
from safety.wrappers import FilterLog

TASKS = ("SafetyPointGoal2-v0", "SafetyCarGoal1-v0", "SafetyPointCircle1-v0")
FORMAT = 2
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """How the filter is checked.

    Attributes:
        margin: m that the filter keeps.
        privileged: ground truth instead of decoded lidar.
        lidar: what happens to the lidars.
        max_steps: end episodes earlier than the environment does.
    """

    margin: float = 0.03
    privileged: bool = False
    lidar: LidarCorruption = field(default_factory=LidarCorruption)
    max_steps: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.margin < float("inf"):
            raise ValueError(f"CheckConfig.margin must be a finite number of metres >= 0, got {self.margin}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"CheckConfig.max_steps must be at least 1, got {self.max_steps}")


@dataclass(frozen=True)
class Job:
    """One episode."""

    env: str
    policy: str
    seed: int


def episode(job: Job, config: CheckConfig) -> dict[str, Any]:
    """One episode, judged by the simulator: return, cost, least true clearance, what the filter did and why.

    Raises:
        ValueError: an unknown policy or environment.
    """
    if job.policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {job.policy!r}")
    spec = envs.spec(job.env)
    env = envs.make(job.env, seed=job.seed)
    seen = CorruptedLidar(env, spec, config.lidar) if config.lidar else env
    told = config.lidar.told(spec) if config.lidar else spec
    guarded = job.policy != "mpc-free"
    guard = GeometricGuard(told, margin=config.margin, env=env if config.privileged else None)
    policy = make_policy(job.policy, spec, seed=job.seed, margin=config.margin)
    log, returned, moving, least = FilterLog(), 0.0, 0, float("inf")
    short = {"margin": 0, "contact": 0, "blind": 0}
    cost, steps = 0.0, 0
    try:
        observation, _ = seen.reset(seed=job.seed)
        guard.reset()
        for _ in range(config.max_steps or spec.max_steps):
            action, plan = policy(truth.scene(env))
            report = guard.guard(observation, action, plan=plan) if guarded else None
            executed = action if report is None else report.action
            observation, reward, terminated, truncated, info = seen.step(executed)
            returned, cost, steps = returned + float(reward), cost + float(info["cost"]), steps + 1
            least = min(least, *info["constraints"].values())
            moving += float(np.hypot(*truth.agent_state(env)[3:5])) > 0.05
            if report is not None:
                log.add(report, float(info["cost"]))
                if report.infeasible:
                    short[_reason(report.method, report.clearance, config.margin)] += 1
            if terminated or truncated:
                break
        log.end_episode()
    finally:
        env.close()
    summary = log.summary() if guarded else {}
    return {
        **asdict(job),
        "return": returned,
        "cost": cost,
        "steps": steps,
        "least_clearance": least,
        "moving": moving / steps,
        "interventions": summary.get("interventions", 0),
        "infeasible": summary.get("infeasible", 0),
        "infeasible_because": short,
        "methods": summary.get("methods", {}),
    }


def _reason(method: str, clearance: float, margin: float) -> str:
    """Why no action was feasible: the margin alone is undercut, or what costs would be touched, or nothing was seen."""
    if method == "blind":
        return "blind"
    return "margin" if clearance + margin >= 0 else "contact"


def summarise(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per task and policy; the MPC's rows say which share of its return without the filter is left."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["env"], record["policy"]), []).append(record)
    rows = []
    for (env_id, policy), group in sorted(groups.items()):
        total = {name: int(sum(record[name] for record in group)) for name in ("steps", "interventions", "infeasible")}
        row = {
            "env": env_id,
            "policy": policy,
            "episodes": len(group),
            "mean_cost": float(np.mean([record["cost"] for record in group])),
            "max_cost": float(np.max([record["cost"] for record in group])),
            "costly_seeds": [record["seed"] for record in group if record["cost"] > 0],
            "least_clearance": float(np.min([record["least_clearance"] for record in group])),
            "mean_return": float(np.mean([record["return"] for record in group])),
            "moving": float(np.mean([record["moving"] for record in group])),
            **total,
            "infeasible_because": {
                key: int(sum(record["infeasible_because"][key] for record in group))
                for key in ("margin", "contact", "blind")
            },
        }
        if policy == "mpc":
            free = {record["seed"]: record["return"] for record in groups.get((env_id, "mpc-free"), [])}
            pairs = [(record["return"], free[record["seed"]]) for record in group if record["seed"] in free]
            before = sum(pair[1] for pair in pairs)
            row["return_kept"] = sum(pair[0] for pair in pairs) / before if before > 0 else None
        rows.append(row)
    return rows


def run(jobs: Sequence[Job], config: CheckConfig, *, workers: int = 1) -> Iterator[dict[str, Any]]:
    """The records of `jobs` as they finish."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield episode(job, config)
        return
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read by the workers when they load numpy
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(episode, job, config) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def finished(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The records that `path` holds.

    Raises:
        ValueError: the file is not of this version, or was made with other settings.
    """
    if not path.exists():
        return []
    try:
        data = json.loads(path.read_text())
        version, old, records = data["format"], data["settings"], data["records"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of this version of the filter check ({error}); move it away") from None
    if version != FORMAT or old != settings:
        raise ValueError(f"{path} was made with other settings ({old}, format {version}), not {settings}; move it away")
    return list(records)


def save(path: Path, settings: dict[str, Any], records: Sequence[dict[str, Any]]) -> None:
    """Write everything, in one piece or not at all; one line per record."""
    head = {
        "format": FORMAT,
        "settings": settings,
        "commit": commit(),
        "machine": machine(),
        "rows": summarise(records),
    }
    ordered = sorted(records, key=lambda record: (record["env"], record["policy"], record["seed"]))
    lines = ",\n".join("    " + json.dumps(record) for record in ordered)
    text = json.dumps(head, indent=2)[:-2] + f',\n  "records": [\n{lines}\n  ]\n}}\n'
    write_whole(path, text)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=POLICIES)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=5000, help="final figures: 10000 upwards")
    parser.add_argument("--margin", type=float, default=0.03)
    parser.add_argument("--privileged", action="store_true", help="ground truth instead of decoded lidar")
    parser.add_argument("--lidar-noise", type=float, default=0.0, help="of every bin, as a share of the range")
    parser.add_argument("--lidar-dropout", type=float, default=0.0, help="probability that a bin reads zero")
    parser.add_argument("--max-steps", type=int, default=None)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=None, help="JSON; finished episodes in it are kept")
    options = parser.parse_args(argv)
    for name in ("episodes", "workers"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    try:
        config = CheckConfig(
            margin=options.margin,
            privileged=options.privileged,
            lidar=LidarCorruption(noise=options.lidar_noise, dropout=options.lidar_dropout),
            max_steps=options.max_steps,
        )
        settings = asdict(config)
        records = [] if options.out is None else finished(options.out, settings)
        for env_id in options.tasks:
            envs.spec(env_id)
    except ValueError as error:
        parser.error(str(error))
    done = {(record["env"], record["policy"], record["seed"]) for record in records}
    jobs = [
        Job(env_id, policy, options.seed + index)
        for index in range(options.episodes)  # seeds first: an interrupted run holds something of everything
        for env_id in options.tasks
        for policy in options.policies
        if (env_id, policy, options.seed + index) not in done
    ]
    print(f"{len(jobs)} episodes to do, {len(done)} kept", flush=True)
    for number, record in enumerate(run(jobs, config, workers=options.workers), 1):
        records.append(record)
        told = f"return {record['return']:.2f}, cost {record['cost']:g}, infeasible {record['infeasible_because']}"
        print(f"[{number}/{len(jobs)}] {record['env']} {record['policy']} seed {record['seed']}: {told}", flush=True)
        if options.out is not None:
            save(options.out, settings, records)
    for row in summarise(records):
        print(row)


if __name__ == "__main__":
    main()

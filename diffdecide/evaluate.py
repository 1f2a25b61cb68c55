"""Evaluations: many episodes of one policy, in worker processes, saved as they finish.

Episode i of a run with seed S uses seed S + i, each worker computes on one thread, and every episode begins with
`policy.reset(spec, seed=...)`: the records are the same for any number of workers.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdecide.policy import Action, InstructedPolicy, Policy, PrivilegedPolicy, TaskPolicy
from diffdecide.records import EpisodeRecord, EvaluationResult, provenance
from diffdecide.rollout import EpisodeTask, Step, rollout

if TYPE_CHECKING:
    from safety.corruption import LidarCorruption

__all__ = [
    "Action",
    "EpisodeRecord",
    "EpisodeTask",
    "EvaluationError",
    "EvaluationResult",
    "InstructedPolicy",
    "Policy",
    "PrivilegedPolicy",
    "Step",
    "TaskPolicy",
    "evaluate",
    "rollout",
]


class EvaluationError(RuntimeError):
    """An evaluation that could not be finished; the message says where and what was kept."""


def evaluate(
    env_id: str,
    policy_factory: Callable[[], Policy],
    *,
    episodes: int,
    seed: int,
    workers: int = 1,
    tasks: Sequence[EpisodeTask] | None = None,
    observe_cost: bool = False,
    max_steps: int | None = None,
    cost_limit: float = 25.0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    corruption: LidarCorruption | None = None,
    progress: bool = True,
) -> EvaluationResult:
    """Run `episodes` episodes with the seeds `seed`, `seed + 1`, ... and collect their records.

    Args:
        policy_factory: makes the policy, once per worker; must be picklable (a function of a module, or a
            `functools.partial` of one) when there is more than one worker.
        workers: processes; 1 runs in this one.
        tasks: what is asked, one per episode; None for the built-in tasks.
        out: JSON file, saved atomically after every episode.
        resume: keep the episodes that `out` already holds, provided it was made with the same settings.
        settings: what else distinguishes this run (planner, filter); saved, and compared when resuming.
        corruption: of the lidars, with the episode's seed; the policy is told of it in its `EnvSpec`.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: a wrong argument, or `out` holds another run.
        EvaluationError: an episode failed or a worker died. The episodes finished before are in `out`.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    if tasks is not None and len(tasks) != episodes:
        raise ValueError(f"tasks must hold one entry per episode ({episodes}), got {len(tasks)}")
    if resume and out is None:
        raise ValueError("resume needs an output file to go on from")
    run = {
        "env": env_id,
        "seed": seed,
        "cost_limit": cost_limit,
        "max_steps": max_steps,
        "observe_cost": observe_cost,
        **(settings or {}),
        "lidar": None if corruption is None else asdict(corruption),
    }
    meta = {**run, "episodes": episodes, "seeds": [seed, seed + episodes - 1], "workers": workers, **provenance()}
    finished: dict[int, EpisodeRecord] = {}
    if out is not None and resume and Path(out).exists():
        old = _resumable(Path(out), run)
        finished = {record.seed: record for record in old.episodes if seed <= record.seed < seed + episodes}
        if finished:
            meta["earlier_commits"] = [commit for commit in old.commits if commit != meta["commit"]]
    EvaluationResult((), cost_limit, meta)  # a bad limit is found before the work, not after it
    jobs = [
        _Job(env_id, seed + i, tasks[i] if tasks is not None else None, observe_cost, max_steps, corruption)
        for i in range(episodes)
        if seed + i not in finished
    ]

    from tqdm import tqdm

    def result() -> EvaluationResult:
        return EvaluationResult(tuple(finished[key] for key in sorted(finished)), cost_limit, meta)

    with tqdm(total=episodes, initial=len(finished), desc=env_id, unit="episode", disable=not progress) as bar:
        for record in _run(jobs, policy_factory, workers, out):
            finished[record.seed] = record
            if out is not None:
                result().save(out)
            bar.update()
            records = finished.values()
            mean_cost = sum(item.cost for item in records) / len(records)
            bar.set_postfix_str(f"return {sum(r.return_ for r in records) / len(records):.2f}, cost {mean_cost:.2f}")
    return result()


@dataclass(frozen=True)
class _Job:
    env_id: str
    seed: int
    episode: EpisodeTask | None
    observe_cost: bool
    max_steps: int | None
    corruption: LidarCorruption | None = None


def _run(
    jobs: Sequence[_Job], factory: Callable[[], Policy], workers: int, out: str | os.PathLike[str] | None
) -> Iterator[EpisodeRecord]:
    kept = f"; finished episodes are kept in {os.fspath(out)}" if out is not None else ""
    if workers == 1:
        worker = _Worker(factory)
        for job in jobs:
            try:
                with _one_thread():
                    record = worker.play(job)
            except Exception as error:
                raise _failure(job, error, kept) from error
            yield record
        return
    try:
        pickle.dumps(factory)
    except Exception as error:
        raise ValueError(f"policy_factory must be picklable to run in {workers} workers: {error}") from error
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))  # read by the workers when they load numpy and torch
    pool = ProcessPoolExecutor(min(workers, max(1, len(jobs))), mp_context=multiprocessing.get_context("spawn"))
    try:
        futures = {pool.submit(_play, factory, job): job for job in jobs}
        for future in as_completed(futures):
            try:
                record = future.result()
            except BrokenProcessPool as error:
                raise EvaluationError(
                    f"a worker process died before its episode was done (out of memory, killed, or the calling script "
                    f"lacks `if __name__ == '__main__':`){kept}"
                ) from error
            except Exception as error:
                raise _failure(futures[future], error, kept) from error
            yield record
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_worker: _Worker | None = None  # one per process: models are loaded once, not once an episode


class _Worker:
    """A policy and the environment of the last job."""

    def __init__(self, factory: Callable[[], Policy]) -> None:
        self.factory = factory
        self.policy: Policy | None = None
        self.env_id: str | None = None
        self.env: Any = None

    def play(self, job: _Job) -> EpisodeRecord:
        from safety.envs import make, spec

        if self.env_id != job.env_id:
            self.env, self.env_id = make(job.env_id, seed=job.seed), job.env_id
        if self.policy is None:
            self.policy = self.factory()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
        env, env_spec = self.env, spec(job.env_id)
        if job.corruption is not None:
            from safety.corruption import CorruptedLidar

            env, env_spec = CorruptedLidar(env, env_spec, job.corruption), job.corruption.told(env_spec)
        return rollout(
            env,
            self.policy,
            job.seed,
            spec=env_spec,
            episode=job.episode,
            observe_cost=job.observe_cost,
            max_steps=job.max_steps,
        )


def _play(factory: Callable[[], Policy], job: _Job) -> EpisodeRecord:
    global _worker
    if _worker is None:
        _worker = _Worker(factory)
    return _worker.play(job)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, as the workers do: sums in another order would be other records."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else None
    with threadpool_limits(1):
        if torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None and threads is not None:
                torch.set_num_threads(threads)


def _failure(job: _Job, error: Exception, kept: str) -> Exception:
    message = f"episode with seed {job.seed} of {job.env_id} failed: {error}{kept}"
    return (
        ValueError(message) if isinstance(error, ValueError) else EvaluationError(f"{type(error).__name__}: {message}")
    )


def _resumable(out: Path, run: Mapping[str, Any]) -> EvaluationResult:
    old = EvaluationResult.load(out)
    different = {name: (old.meta.get(name), value) for name, value in run.items() if old.meta.get(name) != value}
    if different:
        told = ", ".join(f"{name} {was!r} there, {now!r} here" for name, (was, now) in different.items())
        raise ValueError(f"cannot resume from {out}: it was made with other settings ({told})")
    return old

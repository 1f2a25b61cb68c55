"""Environments: Safety-Gymnasium's tasks and ours, with Gymnasium's interface.

Importing this module imports the simulator and applies the patches of `safety._patches`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from typing import Any

import gymnasium

import safety._patches  # noqa: F401 - first: everything below needs the patched package

# isort: split
from gymnasium.envs.registration import load_env_creator
from gymnasium.envs.registration import registry as gymnasium_registry
from safety_gymnasium.utils.registration import safe_registry

from safety._simulation import NavigationEnv, VelocityEnv, fresh_seed
from safety.layout import EnvSpec, ObservationLayout
from safety.tasks.zones import MAX_STEPS, ZoneTask
from safety.truth import radii_of

__all__ = ["available_ids", "make", "make_vector", "spec", "unavailable_ids"]

ZONE_IDS = {"SafetyPointZones1-v0": "Point", "SafetyCarZones1-v0": "Car"}
RENDER_MODES = (None, "rgb_array", "human", "depth_array")


@functools.cache
def _reasons() -> dict[str, str]:
    reasons = {}
    for env_id in safe_registry:
        if "Vision" in env_id:
            reasons[env_id] = "it observes camera pictures, and planners and filters here read lidar and body sensors"
        elif "Debug" in env_id:
            reasons[env_id] = "it is steered from the keyboard, not by actions"
    return dict(sorted(reasons.items()))


@functools.cache
def available_ids() -> tuple[str, ...]:
    """Every environment id that `make` accepts, sorted."""
    return tuple(sorted({*ZONE_IDS, *safe_registry}.difference(_reasons())))


def unavailable_ids() -> dict[str, str]:
    """Registered ids that `make` refuses, each with the reason."""
    return dict(_reasons())


def _check_id(env_id: str) -> None:
    if env_id in _reasons():
        raise ValueError(f"environment {env_id!r} is not available: {_reasons()[env_id]}")
    if env_id not in available_ids():
        near = difflib.get_close_matches(str(env_id), available_ids(), n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "safety.envs.available_ids() lists all"
        raise ValueError(f"unknown environment {env_id!r}; {hint}")


def make(env_id: str, *, seed: int | None = None, render_mode: str | None = None) -> gymnasium.Env:
    """A Gymnasium environment (five-value `step`) with costs and clearances in `info`.

    Every `info`, that of `reset` included, has the same keys: "cost" (1.0 or 0.0), "costs" (by kind), "constraints"
    (signed clearances in metres, or m/s for velocity tasks; negative where violated) and "goal_met" (bool). The zone
    tasks add "inside" (zone -> bool), the velocity tasks "x_velocity" (m/s).

    Args:
        env_id: one of `available_ids()`.
        seed: used by the first `reset()` that names no seed of its own; later resets go on with the same stream.
        render_mode: None, "rgb_array" (navigation tasks: a plan from above that needs no OpenGL), "human" or
            "depth_array" (MuJoCo's own pictures, which need it).

    Raises:
        ValueError: for an unknown id (with the nearest names), an id that cannot run (with the reason) or an unknown
            render mode.
    """
    _check_id(env_id)
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode must be one of {RENDER_MODES}, got {render_mode!r}")
    entry = gymnasium_registry[env_id]
    if env_id in ZONE_IDS:
        zones = NavigationEnv(
            env_id,
            {"agent_name": ZONE_IDS[env_id]},
            task_class=ZoneTask,
            max_steps=MAX_STEPS,
            seed=seed,
            render_mode=render_mode,
        )
        zones.spec = entry
        return zones
    max_steps = int(entry.max_episode_steps or 1000)
    if "config" in entry.kwargs:
        env: gymnasium.Env = NavigationEnv(**entry.kwargs, max_steps=max_steps, seed=seed, render_mode=render_mode)
    else:
        inner: Any = load_env_creator(str(entry.entry_point))(render_mode=render_mode, **entry.kwargs)
        env = VelocityEnv(inner, max_steps=max_steps, seed=seed)
    env.unwrapped.spec = entry
    return env


@functools.cache
def spec(env_id: str) -> EnvSpec:
    """What is known about an environment before its first observation (cached).

    Raises:
        ValueError: like `make`.
    """
    env = make(env_id, seed=0)
    try:
        task = getattr(env.unwrapped, "task", None)
        action_dim, observation_dim = int(env.action_space.shape[0]), int(env.observation_space.shape[0])  # type: ignore[index]
        max_steps = int(env.max_steps)  # type: ignore[attr-defined]
        if task is None:
            name = env_id.removeprefix("Safety").split("Velocity")[0]
            agent = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
            dt = float(env.unwrapped.dt)  # type: ignore[attr-defined]
            return EnvSpec(env_id, agent, dt, max_steps, action_dim, observation_dim)
        entries: dict[str, tuple[int, int]] = {}
        position = 0
        for sensor, space in task.obs_info.obs_space_dict.spaces.items():
            size = int(gymnasium.spaces.utils.flatdim(space))
            entries[sensor] = (position, position + size)
            position += size
        layout = ObservationLayout(entries)
        dt = float(task.agent.engine.model.opt.timestep) * int(task.sim_conf.frameskip_binom_n)
        return EnvSpec(
            id=env_id,
            agent=task.agent_name.lower(),
            dt=dt,
            max_steps=max_steps,
            action_dim=action_dim,
            observation_dim=observation_dim,
            layout=layout if layout.lidars else None,
            lidar_max_dist=float(task.lidar_conf.max_dist) if layout.lidars else None,
            radii=radii_of(task),
            costly=tuple(o.name for o in task._obstacles if getattr(o, "is_constrained", False)),
        )
    finally:
        env.close()


def _factory(env_id: str, seed: int, render_mode: str | None) -> Callable[[], gymnasium.Env]:
    return functools.partial(make, env_id, seed=seed, render_mode=render_mode)


def make_vector(
    env_id: str,
    num_envs: int,
    *,
    seed: int | None = None,
    workers: bool = True,
    render_mode: str | None = None,
) -> gymnasium.vector.VectorEnv:
    """`num_envs` environments stepped together; environment i starts from seed `seed + i`.

    Args:
        workers: one process per environment (gymnasium's AsyncVectorEnv); otherwise all in this process.

    Raises:
        ValueError: like `make`, and for fewer than one environment.
    """
    _check_id(env_id)
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    first = fresh_seed() if seed is None else seed
    factories = [_factory(env_id, first + index, render_mode) for index in range(num_envs)]
    vector: Any = gymnasium.vector.AsyncVectorEnv if workers else gymnasium.vector.SyncVectorEnv
    return vector(factories)


for _env_id in ZONE_IDS:  # so that gymnasium.make knows them too, once this module is imported
    if _env_id not in gymnasium_registry:
        gymnasium.register(id=_env_id, entry_point="safety.envs:make", kwargs={"env_id": _env_id})

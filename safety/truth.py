"""The only door to the simulator's state: the true scene of an environment.

Policies that look through it are "privileged"; everything else sees observations only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from safety.scene import KIND_ID, KINDS, STATE_DIM, Scene

# Bodies that the simulator moves; all others stand still between resets.
_MOVING = frozenset({"vases", "gremlins", "push_box"})


def object_bodies(task: Any) -> list[tuple[str, int]]:
    """(kind, body id) of every object of the task that `safety.scene.KINDS` knows, in the task's own order.

    Ids are looked up once per task: the world is rebuilt at each reset, but always with the same bodies in the same
    order.
    """
    bodies: list[tuple[str, int]] | None = task.__dict__.get("_object_bodies")
    if bodies is None:
        bodies = []
        for obstacle in task._obstacles:
            if obstacle.name not in KIND_ID:
                continue
            suffix = "obj" if obstacle.name == "gremlins" else ""
            stem = obstacle.name[:-1]
            names = [f"{stem}{i}{suffix}" for i in range(obstacle.num)] if hasattr(obstacle, "num") else [obstacle.name]
            bodies += [(obstacle.name, int(task.model.body(name).id)) for name in names]
        task.__dict__["_object_bodies"] = bodies
    return bodies


def _task(env: Any) -> Any:
    task = getattr(env.unwrapped, "task", None)
    if task is None:
        raise ValueError(f"{env.unwrapped!r} has no scene: velocity tasks have no objects and no plane to move in")
    if task.world is None:
        raise ValueError("the environment has no state yet: call reset() before safety.truth")
    return task


def agent_state(env: Any) -> np.ndarray:
    """The agent's true state [6]: x, y [m], yaw [rad], vx, vy [m/s, world frame], yaw rate [rad/s].

    Raises:
        ValueError: if the task has no planar agent or was not reset.
    """
    import mujoco

    task = _task(env)
    model, data = task.model, task.data
    body = task.__dict__.get("_agent_body")
    if body is None:
        body = task.__dict__["_agent_body"] = int(model.body("agent").id)
    velocity = np.empty(6)  # angular, then linear, at the body's origin in world axes
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
    rotation = data.xmat[body]
    state = np.empty(STATE_DIM)
    state[:2] = data.xpos[body, :2]
    state[2] = np.arctan2(rotation[3], rotation[0])
    state[3:5] = velocity[3:5]
    state[5] = velocity[2]
    return state


def scene(env: Any) -> Scene:
    """The true scene in the simulator's world frame (metres, radians, seconds).

    A radius is the distance from the object's centre at which the *agent's centre* is inside or in contact: the size of
    hazards, zones and goals; for solid objects, their half diagonal plus the agent's own reach (on the safe side).

    Args:
        env: an environment of `safety.envs.make`, wrapped or not, after `reset()`.

    Raises:
        ValueError: for tasks without a planar scene (velocity tasks) and before the first reset.
    """
    import mujoco

    task = _task(env)
    model, data = task.model, task.data
    bodies = object_bodies(task)
    constants = task.__dict__.get("_scene_constants")
    if constants is None:
        radii = radii_of(task)
        constants = task.__dict__["_scene_constants"] = (
            np.array([body for _, body in bodies], dtype=np.int64),
            np.array([KIND_ID[kind] for kind, _ in bodies], dtype=np.int64),
            np.array([radii[kind] for kind, _ in bodies], dtype=np.float64),
            [(row, body) for row, (kind, body) in enumerate(bodies) if kind in _MOVING],
        )
    ids, kinds, radii_array, moving = constants
    velocities = np.zeros((len(bodies), 2))
    buffer = np.empty(6)
    for row, body in moving:
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, buffer, 0)
        velocities[row] = buffer[3:5]
    return Scene(
        state=agent_state(env),
        positions=data.xpos[ids, :2].copy() if len(ids) else np.zeros((0, 2)),
        velocities=velocities,
        kinds=kinds.copy(),
        radii=radii_array.copy(),
        sigma=np.zeros(len(bodies)),
    )


# Farthest point of the body from its centre in the plane, m, read off the agents' model files.
_REACH = {"Point": 0.16, "Car": 0.22}


def agent_reach(agent: Any) -> float:
    """Distance in metres from the agent's centre to the farthest point of its body, in the plane."""
    name = type(agent).__name__
    if name in _REACH:
        return _REACH[name]
    model, data = agent.engine.model, agent.engine.data
    centre = data.body("agent").xpos[:2]
    geoms = [i for i in range(model.ngeom) if model.geom(i).name != "floor" and model.geom_contype[i]]
    return float(max(np.linalg.norm(data.geom_xpos[i, :2] - centre) + model.geom_rbound[i] for i in geoms))


def radii_of(task: Any) -> dict[str, float]:
    """Metres, the radius that matters per kind of object in the task; see `scene` for what it means."""
    cached: dict[str, float] | None = task.__dict__.get("_radii")
    if cached is not None:
        return cached
    reach = agent_reach(task.agent)
    radii: dict[str, float] = {}
    for obstacle in task._obstacles:
        name = obstacle.name
        if name not in KINDS:
            continue
        if name == "circle":
            radii[name] = float(obstacle.radius)
        elif name in ("vases", "gremlins", "push_box"):  # boxes
            radii[name] = float(obstacle.size * np.sqrt(2.0) + reach)
        elif name in ("pillars", "buttons"):  # upright cylinders and spheres
            radii[name] = float(obstacle.size + reach)
        else:
            radii[name] = float(obstacle.size)
    task.__dict__["_radii"] = radii
    return radii

"""The same observations and costs as Safety-Gymnasium's tasks compute, with less Python in between.

Of one step of the released code a quarter is MuJoCo; the rest looks bodies and contacts up by name, recomputes the
physics three times and validates what it made itself. `FastTask` looks names up once per task and computes the same
numbers (to rounding; a test compares every family of tasks with the originals).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np

import safety._patches  # noqa: F401 - first: what follows needs the patched package

# isort: split
from safety_gymnasium.tasks.safe_navigation.button.button_level0 import ButtonLevel0
from safety_gymnasium.utils.random_generator import RandomGenerator

from safety.truth import object_bodies

_TURN = 2.0 * math.pi


class FastTask:
    """Stands between a task and its environment, once the task's world exists.

    The world is rebuilt at every reset, always with the same bodies, geoms and sensors in the same order: ids stay
    valid, model and data do not and are fetched anew.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        model = task.model
        self._agent_body = int(model.body("agent").id)
        names = [model.geom(index).name for index in range(model.ngeom)]
        own = set(task.agent.body_info.geom_names)
        self._names = names
        self._own_geoms = np.array([name in own for name in names])
        self._bodies: dict[str, list[int]] = {}
        for kind, body in object_bodies(task):
            self._bodies.setdefault(kind, []).append(body)
        self._gremlins: list[int] = []
        if "gremlins" in task._mocaps:
            leaders = [model.body(f"gremlin{i}mocap").id for i in range(task.gremlins.num)]
            self._gremlins = [int(model.body_mocapid[body]) for body in leaders]
        self._costs = [self._cost_of(obstacle) for obstacle in task._obstacles]
        self._static = bool(task._is_load_static_geoms and task.static_geoms_contact_cost)
        space = task.obs_info.obs_space_dict
        self._size = int(gymnasium.spaces.utils.flatdim(space))
        self._slices: dict[str, slice] = {}
        position = 0
        for name, part in space.spaces.items():
            size = int(gymnasium.spaces.utils.flatdim(part))
            self._slices[name] = slice(position, position + size)
            position += size
        self._lidars = [o for o in task._obstacles if o.is_lidar_observed]
        plain = task.lidar_conf.type == "pseudo" and task.observation_flatten and not task.observe_vision
        known = all(o.name in self._bodies for o in self._lidars)
        self._plain = plain and known and not any(getattr(o, "is_comp_observed", False) for o in task._obstacles)

    # -- physics -------------------------------------------------------------------------------------------------

    def forward(self, action: np.ndarray) -> None:
        """Advance the physics by one control step."""
        task = self._task
        if task.action_noise or task.debug or set(task._mocaps) - {"gremlins"}:
            task.simulation_forward(action)
            return
        task.agent.apply_action(action, None)
        steps = int(task.random_generator.binomial(task.sim_conf.frameskip_binom_n, task.sim_conf.frameskip_binom_p))
        model, data = task.model, task.data
        if self._gremlins:
            gremlins = task.gremlins
            for _ in range(steps):  # they circle, led by bodies that are set before each physics step
                target = (np.sin(data.time) * gremlins.travel, np.cos(data.time) * gremlins.travel, gremlins.size)
                data.mocap_pos[self._gremlins] = target
                mujoco.mj_step(model, data)
        else:
            mujoco.mj_step(model, data, steps)
        mujoco.mj_forward(model, data)

    # -- costs ---------------------------------------------------------------------------------------------------

    def cost(self) -> dict[str, float]:
        """The task's costs by name and "cost_sum", before they become indicators; the physics must be up to date."""
        if self._static:
            return dict(self._task.calculate_cost())
        cost: dict[str, float] = {}
        for part in self._costs:
            cost.update(part())
        cost["cost_sum"] = sum(cost.values())
        return cost

    def _cost_of(self, obstacle: Any) -> Callable[[], dict[str, float]]:
        name = obstacle.name
        if not getattr(obstacle, "is_constrained", False):
            return dict
        if name == "hazards":
            return lambda: {"cost_hazards": self._hazard_depth(obstacle)}
        if name in ("gremlins", "pillars"):
            touched = self._geoms_of(name)
            weight = obstacle.contact_cost if name == "gremlins" else obstacle.cost
            return lambda: {f"cost_{name}": weight * self._contacts(touched)}
        if name == "vases" and not obstacle.displace_cost:
            touched = self._geoms_of(name)
            return lambda: {
                "cost_vases_contact": obstacle.contact_cost * self._contacts(touched),
                "cost_vases_velocity": self._vase_speed(obstacle),
            }
        if name == "buttons":
            touched = self._geoms_of(name)
            return lambda: self._button_cost(obstacle, touched)
        return lambda: {key: float(value) for key, value in obstacle.cal_cost().items()}

    def _geoms_of(self, kind: str) -> np.ndarray:
        """Mask over geoms [G] of those whose name marks them as of a kind."""
        return np.array([name.startswith(kind[:-1]) for name in self._names])

    def _hazard_depth(self, hazards: Any) -> float:
        positions = self._task.data.xpos
        offsets = positions[self._bodies["hazards"], :2] - positions[self._agent_body, :2]
        depth = hazards.size - np.sqrt((offsets * offsets).sum(axis=1))
        return float(hazards.cost * depth[depth > 0].sum())

    def _contacts(self, touched: np.ndarray, excluded: int | None = None) -> int:
        """Number of contacts between the agent and geoms of a mask, those that involve `excluded` left out."""
        data = self._task.data
        if data.ncon == 0:
            return 0
        pairs = data.contact.geom
        hits = touched[pairs].any(axis=1) & self._own_geoms[pairs].any(axis=1)
        if excluded is not None:
            hits &= (pairs != excluded).all(axis=1)
        return int(hits.sum())

    def _button_cost(self, buttons: Any, touched: np.ndarray) -> dict[str, float]:
        if buttons.timer != 0:
            return {}
        goal = self._names.index(f"button{buttons.goal_button}")
        return {"cost_buttons": buttons.cost * self._contacts(touched, excluded=goal)}

    def _vase_speed(self, vases: Any) -> float:
        if not vases.velocity_cost:
            return 0.0
        model, data = self._task.model, self._task.data
        velocity = np.empty(6)
        total = 0.0
        for body in self._bodies["vases"]:
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
            speed = math.sqrt(velocity[3] ** 2 + velocity[4] ** 2 + velocity[5] ** 2)
            if speed >= vases.velocity_threshold:
                total += speed * vases.velocity_cost
        return total

    def presses_goal(self) -> bool:
        """Whether the agent touches the goal button."""
        goal = self._names.index(f"button{self._task.buttons.goal_button}")
        return self._contacts(np.arange(len(self._names)) == goal) > 0

    # -- observations --------------------------------------------------------------------------------------------

    def observation(self) -> np.ndarray:
        """The flat observation [O]; the physics must be up to date."""
        task = self._task
        if not self._plain:
            return np.asarray(task.obs())
        flat = np.empty(self._size)
        for name, value in task.agent.obs_sensor().items():
            flat[self._slices[name]] = value.ravel()
        data = task.data
        x, y, z = data.xpos[self._agent_body].tolist()
        rotation = data.xmat[self._agent_body].tolist()
        positions = data.xpos
        for obstacle in self._lidars:
            name = obstacle.name
            where = self._slices[f"{name}_lidar"]
            if name == "buttons" and task.buttons.timer != 0:
                flat[where] = 0.0
                continue
            # the Circle's centre is the origin, whatever the simulator's rounding made of its body
            points = [[0.0, 0.0, 0.0]] if name == "circle" else positions[self._bodies[name]].tolist()
            flat[where] = self._lidar(points, x, y, z, rotation)
        return flat

    def _lidar(self, points: list[list[float]], x: float, y: float, z: float, rotation: list[float]) -> list[float]:
        """One lidar: per bin the closeness of the nearest object, shared with the neighbouring bins by angle."""
        conf = self._task.lidar_conf
        bins, reach, alias = conf.num_bins, conf.max_dist, conf.alias
        width = _TURN / bins
        readings = [0.0] * bins
        for point in points:
            dx, dy = point[0] - x, point[1] - y
            ahead = dx * rotation[0] + dy * rotation[3] - z * rotation[6]
            left = dx * rotation[1] + dy * rotation[4] - z * rotation[7]
            distance = math.hypot(ahead, left)
            angle = math.atan2(left, ahead) % _TURN
            index = int(angle / width)
            if reach is None:
                closeness = math.exp(-conf.exp_gain * distance)
            else:
                closeness = max(0.0, reach - distance) / reach
            share = angle / width - index
            index %= bins  # an angle a rounding below zero comes out as a full turn
            readings[index] = max(readings[index], closeness)
            if alias:
                after, before = (index + 1) % bins, (index - 1) % bins
                readings[after] = max(readings[after], share * closeness)
                readings[before] = max(readings[before], (1.0 - share) * closeness)
        return readings


def _goal_achieved(task: Any) -> bool:
    """Stands in for `ButtonLevel0.goal_achieved`, which looks every contact up by name, twice per step."""
    fast = task.__dict__.get("_fast")
    if fast is None:
        fast = task.__dict__["_fast"] = FastTask(task)
    return bool(fast.presses_goal())


def _sample_layout(generator: Any) -> bool:
    """Stands in for `RandomGenerator.sample_layout`: the same draws and the same layout, in plain floats.

    Crowded tasks (Button) reject ten thousand placements before one fits.
    """
    uniform, margin = generator.random_generator.uniform, generator.placements_margin
    taken: list[tuple[float, float, float]] = []
    for placements, keepout in generator.placements.values():
        bounds = generator.constrain_placement(generator.placements_extents, keepout) if placements is None else None
        for _ in range(100):
            if bounds is None:
                x, y = generator.draw_placement(placements, keepout).tolist()
            else:
                x, y = uniform(bounds[0], bounds[2]), uniform(bounds[1], bounds[3])
            for other_x, other_y, other_keepout in taken:
                away_x, away_y = x - other_x, y - other_y
                if math.sqrt(away_x * away_x + away_y * away_y) < other_keepout + margin + keepout:
                    break
            else:
                taken.append((x, y, keepout))
                break
        else:
            return False
    generator.layout = {name: np.array([x, y]) for name, (x, y, _) in zip(generator.placements, taken, strict=True)}
    return True


ButtonLevel0.goal_achieved = property(_goal_achieved)
RandomGenerator.sample_layout = _sample_layout

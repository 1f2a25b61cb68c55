"""Safety-Gymnasium's environments behind Gymnasium's interface: five values, cost in `info`, constant info keys."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np

import safety._patches  # noqa: F401 - first: what follows needs the patched package

# isort: split
from safety_gymnasium.builder import Builder
from safety_gymnasium.utils.common_utils import ResamplingError

from safety._clearances import Clearances
from safety._fast import FastTask
from safety._rendering import plan_view, require_drawing

RESET_ATTEMPTS = 100


def fresh_seed() -> int:
    """A seed from the operating system's entropy, without touching numpy's global state."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def check_action(action: Any, space: gymnasium.spaces.Box) -> np.ndarray:
    """The action as float64 [A].

    Raises:
        ValueError: for a wrong shape, NaN or infinity. Finite values beyond the bounds are clipped by the actuators.
    """
    array = np.asarray(action, dtype=np.float64)
    if array.shape != space.shape:
        raise ValueError(f"action has shape {array.shape}, expected {space.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"action must be finite, got {array.tolist()}")
    return array


class NavigationEnv(Builder):
    """A task with a planar agent and objects. `env.unwrapped.task` is Safety-Gymnasium's own task object."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "human", "depth_array"], "render_fps": 30}

    def __init__(
        self,
        task_id: str,
        config: dict[str, Any],
        *,
        task_class: type | None = None,
        max_steps: int,
        seed: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._task_class = task_class
        self._first_seed = seed
        super().__init__(task_id=task_id, config=config, render_mode=render_mode)
        gymnasium.utils.EzPickle.__init__(  # a copy in another process starts from the same arguments
            self, task_id, config, task_class=task_class, max_steps=max_steps, seed=seed, render_mode=render_mode
        )
        self.max_steps = min(max_steps, int(self.task.num_steps))
        self._fast: FastTask | None = None
        self._clearances: Clearances | None = None
        self._cost_keys: tuple[str, ...] = ()

    def _get_task(self) -> Any:
        if self._task_class is None:
            return super()._get_task()
        task = self._task_class(config=self.config)
        task.build_observation_space()
        return task

    def set_seed(self, seed: int | None = None) -> None:
        """Seed the layout and everything else that is random in the task; fresh entropy without a seed."""
        self._seed = fresh_seed() if seed is None else int(seed)
        self.task.random_generator.set_random_seed(self._seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """A new layout. Without `seed`: the one given to `make` the first time, then on with the same random stream.

        A layout that would cost something at once (the first one drawn nearly never does) is drawn again.
        """
        if seed is None and self._first_seed is not None:
            seed = self._first_seed
        self._first_seed = None
        if seed is not None:
            self.set_seed(seed)
        self.terminated = self.truncated = False
        self.steps = 0
        task = self.task
        for _ in range(RESET_ATTEMPTS):
            try:
                task.reset()
                task.update_world()
            except ResamplingError:
                continue
            task.specific_reset()
            task.agent.reset()
            mujoco.mj_forward(task.model, task.data)
            if self._fast is None:
                self._fast = task.__dict__["_fast"] = FastTask(task)
            if self._cost()["cost_sum"] == 0:
                break
        else:
            raise RuntimeError(f"{self.task_id}: no layout without a starting cost in {RESET_ATTEMPTS} attempts")
        if self._clearances is None:
            self._clearances = Clearances(task)
            self._cost_keys = self._all_cost_keys()
        return self._fast.observation(), self._info(self.cost, goal_met=False)

    def _cost(self) -> dict[str, float]:
        """The costs of the present state by name, and their sum; the physics must be up to date."""
        cost = self._simulator().cost()
        if self.task.cost_conf.constrain_indicator:
            cost = {key: float(value > 0.0) for key, value in cost.items()}
        self.cost = cost
        return cost

    def _simulator(self) -> FastTask:
        if self._fast is None:
            raise RuntimeError("the environment has no state yet: call reset() first")
        return self._fast

    def _all_cost_keys(self) -> tuple[str, ...]:
        """Names of all costs the task can ever report; Button tasks leave theirs out while the timer runs."""
        keys = [key for key in self.cost if key != "cost_sum"]
        buttons = getattr(self.task, "buttons", None)
        if buttons is not None and buttons.is_constrained and "cost_buttons" not in keys:
            keys.append("cost_buttons")
        return tuple(keys)

    def _info(self, cost: dict[str, float], *, goal_met: bool) -> dict[str, Any]:
        assert self._clearances is not None  # reset() has run
        info: dict[str, Any] = {
            "cost": float(cost.get("cost_sum", 0.0)),
            "costs": {key.removeprefix("cost_"): float(cost.get(key, 0.0)) for key in self._cost_keys},
            "constraints": self._clearances(),
            "goal_met": goal_met,
        }
        extra = getattr(self.task, "extra_info", None)
        if extra is not None:
            info.update(extra())
        return info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step.

        Returns:
            observation [O], reward, terminated, truncated, info with "cost" (1 if anything was violated,
            else 0), "costs" (the same by kind), "constraints" (signed clearances in metres) and "goal_met".

        Raises:
            ValueError: for an action of the wrong shape or with NaN.
            RuntimeError: if the episode is over or was never begun.
        """
        if self.done:
            raise RuntimeError("the episode is over or was never begun: call reset() before step()")
        array = check_action(action, self.action_space)
        task, fast = self.task, self._simulator()
        fast.forward(array)
        reward = float(self._reward())
        cost = self._cost()
        task.specific_step()
        goal_met = bool(task.goal_achieved)
        clearances = None
        if goal_met:
            if task.mechanism_conf.continue_goal:
                clearances = self._clearances() if self._clearances else None  # before anything is moved
                task.update_layout()
                try:
                    task.update_world()
                except ResamplingError:
                    if not task.mechanism_conf.terminate_resample_failure:
                        raise
                    self.terminated = True
            else:
                self.terminated = True
        if not task.agent.is_alive():
            self.terminated = True
        self.steps += 1
        if self.steps >= self.max_steps:
            self.truncated = True
        if self.render_parameters.mode == "human":
            self.render()
        info = self._info(cost, goal_met=goal_met)
        if clearances is not None:
            info["constraints"] = clearances
        return fast.observation(), reward, self.terminated, self.truncated, info

    def render(self) -> np.ndarray | None:
        """A plan of the world from above [256, 256, 3] uint8 for "rgb_array", drawn without any graphics library.

        Other modes are Safety-Gymnasium's own.

        Raises:
            RuntimeError: without a render mode, before the first reset, or where another mode needs OpenGL and the
                machine has none.
        """
        if self.render_parameters.mode is None:
            raise RuntimeError('render() needs a render mode: make(..., render_mode="rgb_array")')
        if self.task.world is None:
            raise RuntimeError("nothing to draw yet: call reset() before render()")
        if self.render_parameters.mode == "rgb_array":
            return plan_view(self)
        require_drawing()
        return super().render()


class VelocityEnv(gymnasium.Wrapper):
    """A robot that is to run, but not faster than a limit: `info["constraints"]["speed"]` is what is left, in m/s."""

    def __init__(self, env: gymnasium.Env, *, max_steps: int, seed: int | None = None) -> None:
        super().__init__(env)
        self.max_steps = max_steps
        self._first_seed = seed
        self._limit = float(env.unwrapped._velocity_threshold)  # type: ignore[attr-defined]
        self._steps = 0
        self._over = True
        name = type(env.unwrapped).__module__.rsplit(".", 1)[-1]
        # As in the tasks' own costs: these robots are limited in the plane, the others in x alone.
        self._planar = any(robot in name for robot in ("ant", "humanoid")) or name.endswith("swimmer_velocity_v0")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start anew. Without `seed`: the one given to `make` the first time, then on with the same random stream."""
        if seed is None and self._first_seed is not None:
            seed = self._first_seed
        self._first_seed = None
        self._steps, self._over = 0, False
        observation, _ = self.env.reset(seed=seed, options=options)
        return observation, self._info(0.0, speed=0.0, x_velocity=0.0)

    def _info(self, cost: float, *, speed: float, x_velocity: float) -> dict[str, Any]:
        return {
            "cost": cost,
            "costs": {"speed": cost},
            "constraints": {"speed": self._limit - speed},
            "goal_met": False,
            "x_velocity": x_velocity,
        }

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step; raises like `NavigationEnv.step`."""
        if self._over:
            raise RuntimeError("the episode is over or was never begun: call reset() before step()")
        array = check_action(action, self.env.action_space)  # type: ignore[arg-type]
        observation, reward, cost, terminated, truncated, raw = self.env.step(array)  # type: ignore[misc]
        self._steps += 1
        truncated = bool(truncated) or self._steps >= self.max_steps
        self._over = bool(terminated) or truncated
        x_velocity = float(raw["x_velocity"])
        speed = float(np.hypot(x_velocity, raw["y_velocity"])) if self._planar else x_velocity
        return (
            observation,
            float(reward),
            bool(terminated),
            truncated,
            self._info(float(cost), speed=speed, x_velocity=x_velocity),
        )

    def render(self) -> Any:
        """The robot's own picture; raises RuntimeError without a render mode or without OpenGL."""
        if self.env.render_mode is None:
            raise RuntimeError('render() needs a render mode: make(..., render_mode="rgb_array")')
        require_drawing()
        return self.env.render()

"""Makes the released safety-gymnasium importable and correct on a current stack, without touching its files.

The release (1.0.0) was written for Python < 3.11, numpy 1 and MuJoCo 2.3.3. What breaks on newer ones, and what is
done about it here:

- Python >= 3.11 refuses dataclass fields with array defaults: while the package is being imported, such defaults
  become factories that copy the array.
- The joint sensors index the model with one-element arrays, which MuJoCo 3 and numpy 2 refuse: sensors are looked up
  by integer addresses instead (`_read_joint_sensors`, `_sensor_observation`).
- gymnasium's Swimmer model carries `collision="predefined"`, an attribute MuJoCo 3 no longer knows: it is dropped
  when the model is read. Its meaning (collide only predefined pairs) is kept: the model predefines none, so no geom
  may collide.
- The package pulls in gymnasium-robotics and pettingzoo for its multi-agent tasks, which are not offered here: that
  one module is loaded only when somebody asks for it.
- Six big sky pictures are decoded each time a world is built, and the textures of the Race tasks are missing from the
  release altogether: both become plain built-in colours. Only pictures change, never physics or observations of the
  tasks offered here.

Importing this module applies the patches; that happens once.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import sys
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import yaml

MULTI_AGENT = "safety_gymnasium.tasks.safe_multi_agent.safe_mujoco_multi"
INSTALL_COMMAND = "pip install --no-deps -r requirements-sim.txt"


def _make_multi_agent(*args: Any, **kwargs: Any) -> Any:
    """The package's `make_ma`, loaded at the first call; needs gymnasium-robotics and pettingzoo."""
    return importlib.import_module(MULTI_AGENT).make_ma(*args, **kwargs)


def _import_package() -> Any:
    """Import safety_gymnasium while `dataclasses.dataclass` accepts array defaults from its modules."""
    original = dataclasses.dataclass
    deferred = types.ModuleType(MULTI_AGENT)
    deferred.make_ma = _make_multi_agent  # type: ignore[attr-defined]

    def tolerant(cls: Any = None, /, **options: Any) -> Any:
        def decorate(target: Any) -> Any:
            if target.__module__.startswith("safety_gymnasium"):
                for name in inspect.get_annotations(target):
                    default = target.__dict__.get(name)
                    if isinstance(default, np.ndarray):
                        setattr(target, name, dataclasses.field(default_factory=default.copy))
            return original(**options)(target)

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = tolerant
    sys.modules[MULTI_AGENT] = deferred
    try:
        package = importlib.import_module("safety_gymnasium")
        importlib.import_module("safety_gymnasium.builder")  # loads every object and task class
        return package
    finally:
        dataclasses.dataclass = original
        del sys.modules[MULTI_AGENT]


def _read_joint_sensors(agent: Any) -> None:
    """Sort the agent's joint and site sensors by kind; stands in for `BaseAgent._init_jnt_sensors`."""
    import mujoco

    model, info = agent.engine.model, agent.sensor_info
    joints = {
        (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtSensor.mjSENS_JOINTPOS): info.hinge_pos_names,
        (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtSensor.mjSENS_JOINTVEL): info.hinge_vel_names,
        (mujoco.mjtJoint.mjJNT_BALL, mujoco.mjtSensor.mjSENS_BALLQUAT): info.ballquat_names,
        (mujoco.mjtJoint.mjJNT_BALL, mujoco.mjtSensor.mjSENS_BALLANGVEL): info.ballangvel_names,
    }
    by_kind = {(int(joint), int(sensor)): names for (joint, sensor), names in joints.items()}
    for index in range(model.nsensor):
        name = model.sensor(index).name
        info.sensor_dim[name] = int(model.sensor_dim[index])
        if model.sensor_objtype[index] == int(mujoco.mjtObj.mjOBJ_JOINT):
            kind = (int(model.jnt_type[model.sensor_objid[index]]), int(model.sensor_type[index]))
            if kind not in by_kind:
                raise ValueError(
                    f"sensor {name!r} reads a joint in a way that is not supported: (joint, sensor)={kind}"
                )
            by_kind[kind].append(name)
        elif name == "agent_pos":
            info.freejoint_pos_name = name
        elif name == "agent_qvel":
            info.freejoint_qvel_name = name


def _sensor_observation(agent: Any) -> dict[str, np.ndarray]:
    """The agent's sensors by name; stands in for `BaseAgent.obs_sensor`, with addresses looked up once per agent."""
    import mujoco

    slices = agent.__dict__.get("_sensor_slices")
    if slices is None:
        model, info = agent.engine.model, agent.sensor_info

        def where(name: str) -> slice:
            index = model.sensor(name).id
            return slice(int(model.sensor_adr[index]), int(model.sensor_adr[index] + model.sensor_dim[index]))

        raw = [*agent.sensor_conf.sensors, *info.hinge_vel_names, *info.ballangvel_names]
        if info.freejoint_qvel_name:
            raw.append(info.freejoint_qvel_name)
        slices = {name: where(name) for name in raw}
        if info.freejoint_pos_name:  # only the height is observed, so that the agent does not know where it is
            full = where(info.freejoint_pos_name)
            slices[info.freejoint_pos_name] = slice(full.start + 2, full.stop)
        hinges = {name: where(name) for name in info.hinge_pos_names}
        balls = {name: where(name) for name in info.ballquat_names}
        slices = agent.__dict__["_sensor_slices"] = (slices, hinges, balls)
    raw_slices, hinges, balls = slices
    data = agent.engine.data.sensordata
    observation = {name: data[where].copy() for name, where in raw_slices.items()}
    angles = agent.sensor_conf.sensors_angle_components
    for name, where in hinges.items():
        value = data[where].copy()
        observation[name] = np.array([np.sin(value[0]), np.cos(value[0])]) if angles else value
    for name, where in balls.items():
        value = data[where].copy()
        if angles:
            matrix = np.empty(9)
            mujoco.mju_quat2Mat(matrix, value)
            value = matrix.reshape(3, 3)
        observation[name] = value
    return observation


def _load_without_collision_attribute(env: Any) -> tuple[Any, Any]:
    """Read a velocity task's model, dropping `collision="predefined"`; stands in for `_initialize_simulation`."""
    import mujoco

    tree = ElementTree.parse(env.fullpath)
    predefined = False
    for option in tree.getroot().iter("option"):
        predefined = option.attrib.pop("collision", None) == "predefined" or predefined
    model = mujoco.MjModel.from_xml_string(ElementTree.tostring(tree.getroot(), encoding="unicode"))
    if predefined:
        model.geom_contype[:] = 0
        model.geom_conaffinity[:] = 0
    model.vis.global_.offwidth = env.width
    model.vis.global_.offheight = env.height
    return model, mujoco.MjData(model)


class _AssetReader:
    """Stands in for the `yaml` module in `safety_gymnasium.world`: reads a file once, with textures that exist."""

    FullLoader = yaml.FullLoader

    def __init__(self, texture_folder: Path) -> None:
        self._folder = texture_folder
        self._read: dict[str, Any] = {}

    def load(self, file: Any, Loader: Any) -> Any:
        if file.name not in self._read:
            self._read[file.name] = self._with_plain_textures(yaml.load(file, Loader=Loader))
        return copy.deepcopy(self._read[file.name])

    def _with_plain_textures(self, assets: Any) -> Any:
        plain = {"@builtin": "flat", "@width": "8", "@height": "8"}
        for name, texture in assets.get("textures", {}).items():
            if name == "skybox":
                sky = {"@type": "skybox", "@builtin": "gradient", "@rgb1": "0.6 0.75 0.9", "@rgb2": "0.95 0.97 1"}
                assets["textures"][name] = {**sky, "@width": "64", "@height": "64"}
            elif "@file" in texture and not (self._folder / texture["@file"]).exists():
                colour = "0.55 0.62 0.45" if "bush" in name else "0.7 0.62 0.5"
                assets["textures"][name] = {"@name": name, "@type": "2d", "@rgb1": colour, **plain}
        return assets


def _apply() -> Any:
    try:
        package = _import_package()
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the environments need a simulator package that is missing ({error.name}); "
            f"install it with one command: {INSTALL_COMMAND}"
        ) from error
    import safety_gymnasium.world as safety_gymnasium_world
    from safety_gymnasium.bases.base_agent import BaseAgent
    from safety_gymnasium.tasks.safe_velocity.safety_swimmer_velocity_v0 import SafetySwimmerVelocityEnv

    safety_gymnasium_world.yaml = _AssetReader(Path(package.__file__).parent / "assets" / "textures")
    BaseAgent._init_jnt_sensors = _read_joint_sensors
    BaseAgent.obs_sensor = _sensor_observation
    SafetySwimmerVelocityEnv._initialize_simulation = _load_without_collision_attribute
    return package


safety_gymnasium = _apply()

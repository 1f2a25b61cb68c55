"""The receding-horizon planner: candidates from a diffusion model, projected, ranked, executed a few steps, replanned.

A planner is a folder: `planner.json` (this class's config), `diffusion/` (the model), `critic/` (where there is one),
`statistics.json` (normalisers of return and budget). Everything in it is JSON and safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffdecide.aim import aim
from diffdecide.data.windows import WindowStatistics
from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.features import SceneTokens
from diffdecide.files import write_json
from diffdecide.guidance import Guide
from diffdecide.plan import Plan
from diffdecide.plan_projection import PlanProjection
from diffdecide.planner_config import PlannerConfig
from diffdecide.preference import Preference, score_guide, standardised
from diffdecide.sampling import sample
from diffdecide.value import TrajectoryValue
from safety.constraints import Ball
from safety.controllers.judge import HARD_WEIGHT, SOFT_WEIGHT, FieldCache, PlanJudge
from safety.controllers.objective import Objective
from safety.dynamics import dynamics_for
from safety.scene import Scene


class Planner:
    """Plans for one agent in one environment at a time: `reset`, then `plan` whenever a new plan is due."""

    def __init__(
        self,
        model: TrajectoryDiffusion,
        config: PlannerConfig,
        statistics: WindowStatistics,
        *,
        guides: Sequence[Guide] = (),
        preferences: Sequence[Preference] = (),
        critic: TrajectoryValue | None = None,
    ) -> None:
        if model.config["horizon"] != config.rows.rows:
            raise ValueError(
                f"the model plans {model.config['horizon']} rows, the planner's config has {config.rows.rows}"
            )
        self.model = model.eval()
        self.config = config
        self.statistics = statistics.eval()
        self.guides = tuple(guides)
        self.preferences = tuple(preferences)
        if config.value_weight and critic is None:
            raise ValueError(
                "PlannerConfig.value_weight needs a critic, and this planner has none: `train value` makes one"
            )
        self.critic = None if critic is None else critic.eval()
        self.dynamics = dynamics_for(config.agent)
        self.reset(seed=0)

    def reset(self, *, seed: int) -> None:
        """Forget the last episode; all randomness of the next one follows from `seed`."""
        self._generator = torch.Generator().manual_seed(seed)
        self._previous: Tensor | None = None  # [T, 2] motor commands of the last plan
        self._fields = FieldCache()

    @torch.no_grad()
    def plan(
        self,
        scene: Scene,
        tokens: SceneTokens,
        goal: np.ndarray,
        *,
        constraints: Sequence[Ball] = (),
        margin: float,
        elapsed: int | None = None,
        budget: float | None = None,
    ) -> Plan:
        """A plan from the current scene.

        Args:
            tokens: the scene's features, see `diffdecide.features`.
            goal: [G] embedding of the current sub-goal.
            constraints: further balls to keep clear of (zones that an instruction forbids).
            margin: metres that the filter keeps; plans keep `config.margin_extra` more.
            elapsed: control steps since the last plan; None: `config.replan`.
            budget: cost that may still be spent, in cost units; None: `config.budget`, normalised.
        """
        config = self.config
        batch = _batch(tokens, goal)
        encoded = self.model.context(**batch, **self._conditions(budget))
        objective, confidence = aim(scene, tokens, encoded.target_logits[0], constraints)
        keep = margin + config.margin_extra
        judge = PlanJudge(
            objective,
            self._fields,
            margin=keep,
            task_weight=config.task_weight,
            hard_weight=HARD_WEIGHT * config.clearance_weight,
            soft_weight=SOFT_WEIGHT * config.clearance_weight,
        )
        self._wishes = tuple(wish.at(batch) for wish in self.preferences)
        commands = self._propose(scene, objective, keep, encoded.context, batch, elapsed)
        states = self._rollout(scene, commands)
        costs = judge.cost(states)
        if config.project:
            commands, states, costs = self._improve(scene, objective, keep, judge, commands, states, costs)
        if config.stopped_cost:
            stopped = self._stopped(scene, judge, states, margin)
            costs = np.asarray(costs + config.stopped_cost * stopped, dtype=np.float32)
        costs = costs - self._preferred(scene, commands, states, judge) - self._valued(batch, commands)
        chosen = int(np.argmin(costs))
        self._previous = self.config.rows.expand(commands[chosen])
        return Plan(
            actions=np.asarray(self.dynamics.command(self._previous.numpy())),
            states=states[chosen],
            candidates=states[..., :2],
            costs=costs,
            chosen=chosen,
            clearance=judge.clearance(states[chosen][None])[0],
            margin=keep,
            target=objective.target,
            target_confidence=confidence,
        )

    def _conditions(self, budget: float | None) -> dict[str, Tensor | None]:
        config = self.config
        wanted = None if config.return_target is None else torch.tensor([config.return_target], dtype=torch.float32)
        allowed = None if config.budget is None else torch.tensor([config.budget], dtype=torch.float32)
        if budget is not None and allowed is not None:
            normal = self.statistics.cost_budget.normalize(torch.tensor([[budget]], dtype=torch.float32))[0]
            allowed = torch.minimum(allowed, normal)
        return {"return_to_go": wanted, "cost_budget": allowed}

    def _propose(
        self,
        scene: Scene,
        objective: Objective,
        keep: float,
        context: Tensor,
        batch: dict[str, Tensor],
        elapsed: int | None,
    ) -> Tensor:
        """Candidate rows [C, H, 2] in motor commands, the shifted previous plan among them."""
        config = self.config
        shape = (config.candidates, config.rows.rows, 2)
        previous = self._shifted(config.replan if elapsed is None else elapsed)
        warm = 0 if previous is None else int(config.candidates * config.warm_share)
        if config.proposal == "gaussian":
            fresh = torch.randn(shape, generator=self._generator)
            if previous is not None:
                fresh[:warm] = previous + config.warm_strength * fresh[:warm]
            candidates = [fresh.clamp(-1, 1)]
        else:
            draw = self._drawer(scene, objective, keep, context, batch)
            starts: list[tuple[int, dict[str, Any]]] = [(config.candidates - warm, {})]
            starts.append((warm, {"init": previous, "init_strength": config.warm_strength}))
            candidates = [draw((count, *shape[1:]), **start) for count, start in starts if count]
        if previous is not None:
            candidates.append(previous)
        if config.escapes:
            candidates.append(torch.from_numpy(config.rows.contract(_escapes(config.rows.span))))
        return torch.cat(candidates)

    def _drawer(
        self, scene: Scene, objective: Objective, keep: float, context: Tensor, batch: dict[str, Tensor]
    ) -> Callable[..., Tensor]:
        """A function that draws plans of a shape from the model, from noise or from `init`."""
        config = self.config
        guides = list(self.guides)
        if config.clearance_guidance:
            guides.append(self._clearance_guide(scene, objective, keep))
        guides += [
            score_guide(wish.score, scene, config.rows, self.dynamics, scale=wish.guidance)
            for wish in self._wishes
            if wish.guidance
        ]
        options: dict[str, Any] = {
            "generator": self._generator,
            "context": context,
            "guides": guides,
            "steps": config.steps,
            "scheduler": replace(self.model.schedule, scheduler=config.scheduler),
            "temperature": config.temperature,
            "guidance_scale": config.guidance_scale,
        }
        if config.guidance_scale != 1.0:
            options["uncond_context"] = self.model.context(**batch, without=("goal", "return", "budget")).context
        return lambda shape, **start: sample(self.model, shape, **options, **start).sample

    def _shifted(self, elapsed: int) -> Tensor | None:
        """The previous plan [1, H, 2] moved on by `elapsed` steps, its last command held."""
        if self._previous is None:
            return None
        elapsed = min(elapsed, len(self._previous))
        dense = torch.cat([self._previous[elapsed:], self._previous[-1:].expand(elapsed, -1)])
        return torch.from_numpy(self.config.rows.contract(dense.numpy()))[None]

    def _rollout(self, scene: Scene, commands: Tensor) -> np.ndarray:
        actions = self.dynamics.command(self.config.rows.expand(commands.numpy()))
        return np.asarray(self.dynamics.rollout(scene.state.astype(np.float32), actions))

    def _preferred(self, scene: Scene, commands: Tensor, states: np.ndarray, judge: PlanJudge) -> np.ndarray:
        """What the preferences take off each candidate's cost, [C].

        A plan that comes closer than the margin gets no more than the least preferred one: liking something is no
        reason to come near a hazard.
        """
        gains = np.zeros(len(states), dtype=np.float32)
        if self._wishes:
            actions = np.asarray(self.dynamics.command(self.config.rows.expand(commands.numpy())))
            for wish in self._wishes:
                gains += wish.gain(scene, states, actions).astype(np.float32)
            if self.config.clearance_weight:
                gains = np.where(self._stopped(scene, judge, states, judge.margin) > 0, gains.min(), gains)
        return gains

    def _valued(self, batch: dict[str, Tensor], commands: Tensor) -> np.ndarray:
        """What the critic's favour takes off each candidate's cost, [C]."""
        if self.critic is None or not self.config.value_weight:
            return np.zeros(len(commands), dtype=np.float32)
        ahead = self.critic.predict(self.statistics.trajectory.normalize(commands), **batch)
        favour = (ahead.value - self.config.cost_price * ahead.cost).numpy()
        return standardised(favour, self.config.value_weight).astype(np.float32)

    def _stopped(self, scene: Scene, judge: PlanJudge, states: np.ndarray, margin: float) -> np.ndarray:
        """How far [C] plans go inside the filter's margin, in [0, 2]: 0 for those that it lets pass."""
        now = float(judge.clearance(scene.state[None, None])[0, 0])
        depth = min(margin, now) - 0.002 - judge.clearance(states).min(1)
        stopped = np.where(depth > 0, 1 + np.clip(10 * depth, 0, 1), 0.0)
        return stopped.astype(np.float32)

    def _balls(self, scene: Scene, objective: Objective, keep: float) -> list[Ball]:
        """Hard obstacles that the plan could come near to, as constraint objects with the plan's margin."""
        distance = np.linalg.norm(objective.hard_centers - scene.state[:2], axis=1) - objective.hard_radii
        reach = self.dynamics.top_speed * self.dynamics.dt * self.config.rows.span
        return [
            Ball(center=objective.hard_centers[i], radius=float(objective.hard_radii[i]), margin=keep)
            for i in np.flatnonzero(distance < reach)
        ]

    def _projection(self, scene: Scene, objective: Objective, keep: float) -> PlanProjection:
        state = torch.from_numpy(scene.state.astype(np.float32))
        return PlanProjection(
            self.dynamics,
            self.config.rows,
            state,
            self._balls(scene, objective, keep),
            iterations=self.config.projection_iterations,
        )

    def _clearance_guide(self, scene: Scene, objective: Objective, keep: float) -> Guide:
        projection = self._projection(scene, objective, keep + 0.05)
        return Guide(lambda clean, t: projection.clearance(clean).clamp_max(0), self.config.clearance_guidance)

    def _improve(
        self,
        scene: Scene,
        objective: Objective,
        keep: float,
        judge: PlanJudge,
        commands: Tensor,
        states: np.ndarray,
        costs: np.ndarray,
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Project the best candidates if the best of all comes too close: a detour instead of a stop."""
        best = np.argsort(costs)[:4]
        if judge.clearance(states[best]).min() >= keep:
            return commands, states, costs
        projected = self._projection(scene, objective, keep)(commands[torch.from_numpy(best)])
        more = self._rollout(scene, projected)
        return (
            torch.cat([commands, projected]),
            np.concatenate([states, more]),
            np.concatenate([costs, judge.cost(more)]),
        )

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> None:
        """Write the planner to `folder`; with a model card as README.md."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder / "diffusion")
        if self.critic is not None:
            self.critic.save_pretrained(folder / "critic")
        write_json(folder / "statistics.json", self.statistics.to_dict())
        write_json(folder / "planner.json", self.config.to_dict())
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> Planner:
        """Read a planner; keyword arguments override settings of `PlannerConfig`.

        Raises:
            ValueError: the folder is not a planner, or a file of it is damaged.
        """
        folder = Path(folder)
        if not (folder / "planner.json").is_file():
            raise ValueError(f"{folder} holds no planner: expected a planner.json in it")
        try:
            config = PlannerConfig.from_dict(json.loads((folder / "planner.json").read_text(encoding="utf-8")))
            statistics = WindowStatistics.from_dict(
                json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
            )
            model = TrajectoryDiffusion.from_pretrained(folder / "diffusion")
            critic = TrajectoryValue.from_pretrained(folder / "critic") if (folder / "critic").is_dir() else None
            for part in (model, critic):
                if part is not None:
                    part.register_to_config(_name_or_path="")  # diffusers notes the folder, and would save it again
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"the planner in {folder} is damaged: {type(error).__name__}: {error}") from error
        unknown = set(overrides) - set(config.to_dict())
        if unknown:
            raise ValueError(f"unknown planner settings: {', '.join(sorted(unknown))}")
        critic = None if critic is None else critic.float()
        return cls(model.float(), replace(config, **overrides), statistics, critic=critic)


def _escapes(span: int) -> np.ndarray:
    """Motor commands [C, span, 2]: each corner and edge of the command square, held for a while, then nothing."""
    axis = (-1.0, 0.0, 1.0)
    constant = np.array([(a, b) for a in axis for b in axis if (a, b) != (0.0, 0.0)], dtype=np.float32)
    lengths = (span // 6, span // 3, span)
    held = [np.repeat(constant[:, None], span, 1) * (np.arange(span) < length)[None, :, None] for length in lengths]
    return np.concatenate(held).astype(np.float32)


def _batch(tokens: SceneTokens, goal: np.ndarray) -> dict[str, Tensor]:
    return {
        "ego": torch.from_numpy(tokens.ego)[None],
        "tokens": torch.from_numpy(tokens.tokens)[None],
        "token_mask": torch.from_numpy(tokens.mask)[None],
        "goal": torch.from_numpy(np.asarray(goal, dtype=np.float32))[None],
    }

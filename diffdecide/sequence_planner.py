"""The planner without geometry: plans of states and actions, ranked by a learned critic, for any recorded data.

Where `diffdecide.planner` needs a motion model and decoded objects, this one needs observations only. A plan is
sampled under a wanted return and a cost budget (classifier-free guidance: Ajay et al. 2023, Liu et al. 2023), keeps the
known past by inpainting, and the candidates are ranked by predicted value minus predicted cost above the budget. It
gives no guarantee: what is safe is learned from the data. A safety filter behind it is a matter of the policy.

A planner is a folder: `sequence_planner.json` (config), `statistics.json` (normalisers), `diffusion/`, and where it has
them `critic/` and `inverse/`. Everything is JSON and safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from diffdecide.data.normalize import Normalizer
from diffdecide.data.windows import WindowStatistics
from diffdecide.diffusion import TrajectoryDiffusion
from diffdecide.files import read_json, write_json, write_text
from diffdecide.guidance import Guide
from diffdecide.nets.inverse_dynamics import InverseDynamics
from diffdecide.sampling import Inpaint, sample
from diffdecide.sequence_format import SequenceFormat
from diffdecide.value import TrajectoryValue, ValueEstimate

MARKER = "sequence_planner.json"
ACTIONS = ("plan", "inverse")


@dataclass(frozen=True, kw_only=True)
class SequencePlannerConfig:
    """How plans are made. `format` belongs to the trained model, the rest may be changed at will.

    Attributes:
        format: layout of the plans.
        candidates: plans per decision.
        warm_share: share of them that start from the previous plan.
        warm_strength: how far up the schedule the previous plan is noised.
        steps, scheduler, temperature: of the sampler; a low temperature, as in Ajay et al. 2023, keeps gaits steady.
        guidance_scale: classifier-free guidance on return and budget; 1 is plain conditioning.
        critic_guidance: scale of the critic's gradient during sampling; 0 for none.
        return_target: normalised return asked for; None: unconditional.
        budget: the most cost, normalised, that is ever asked for; a smaller budget given to `plan` is asked for
            instead. None: whatever is given, and nothing where none is.
        frontier: (cost-to-go, return-to-go) pairs, normalised, both rising: what the data reached within a cost. With a
            budget no more return is asked for than that: no plan in the data has both. Empty: `return_target` whatever
            the budget.
        cost_penalty: value given up per unit of predicted cost above the budget, both in units of their spread.
        replan: control steps between plans.
        actions: "plan": those of the plan; "inverse": read from its states by inverse dynamics.
    """

    format: SequenceFormat
    candidates: int = 16
    warm_share: float = 0.5
    warm_strength: float = 1 / 3
    steps: int = 5
    scheduler: str = "ddim"
    temperature: float = 0.5
    guidance_scale: float = 1.5
    critic_guidance: float = 0.0
    return_target: float | None = 1.0
    budget: float | None = None
    frontier: tuple[tuple[float, float], ...] = ()
    cost_penalty: float = 2.0
    replan: int = 4
    actions: str = "plan"

    def __post_init__(self) -> None:
        for name in ("candidates", "steps", "replan"):
            if getattr(self, name) < 1:
                raise ValueError(f"SequencePlannerConfig.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.warm_share <= 1:
            raise ValueError(f"SequencePlannerConfig.warm_share must lie in [0, 1], got {self.warm_share}")
        for name in ("cost_penalty", "critic_guidance", "guidance_scale", "temperature"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"SequencePlannerConfig.{name} must be finite and >= 0, got {getattr(self, name)}")
        pairs = np.asarray(self.frontier, dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(pairs).all() or (np.diff(pairs, axis=0) < 0).any():
            raise ValueError(f"SequencePlannerConfig.frontier must hold finite pairs, both rising, got {self.frontier}")
        future = self.format.rows.span - self.format.history
        if self.replan > future:
            raise ValueError(f"SequencePlannerConfig.replan must be at most the plan's {future} steps: {self.replan=}")
        if self.actions not in ACTIONS:
            raise ValueError(f"SequencePlannerConfig.actions must be one of {', '.join(ACTIONS)}, got {self.actions!r}")

    def to_dict(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self)} | {"format": self.format.to_dict()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SequencePlannerConfig:
        frontier = tuple((float(cost), float(reached)) for cost, reached in value.get("frontier", ()))
        return cls(**{**value, "format": SequenceFormat.from_dict(value["format"]), "frontier": frontier})


@dataclass(frozen=True)
class SequencePlan:
    """What a sequence planner returns. R rows of the future, C candidates, T control steps.

    Attributes:
        actions: [T, A] for every control step, within [-1, 1].
        states: [R, S] states at the ends of the rows: poses (x, y in m, cos, sin of the yaw) in the frame of
            `history` steps ago, or observations.
        candidates: [C, R, S] states of all candidates.
        scores: [C] what they were ranked by, higher is better; zeros without a critic.
        values, costs: [C] predicted return-to-go and cost-to-go in the units of the data; zeros without a critic.
        chosen: index of the best candidate.
        allowed: cost-to-go that the budget allows; None without a budget.
    """

    actions: np.ndarray
    states: np.ndarray
    candidates: np.ndarray
    scores: np.ndarray
    values: np.ndarray
    costs: np.ndarray
    chosen: int
    allowed: float | None


class SequencePlanner:
    """Plans from observations alone: `reset`, then `plan` whenever a new plan is due.

    Args:
        model: plans [B, H, D] of `config.format`.
        config: how plans are made.
        statistics: normalisers of the plans, of return and of budget.
        observation: normaliser of the observations.
        critic: ranks the candidates; without one the first candidate is taken.
        inverse: needed where `config.actions` is "inverse".

    Raises:
        ValueError: parts that do not fit together.
    """

    def __init__(
        self,
        model: TrajectoryDiffusion,
        config: SequencePlannerConfig,
        statistics: WindowStatistics,
        observation: Normalizer,
        *,
        critic: TrajectoryValue | None = None,
        inverse: InverseDynamics | None = None,
    ) -> None:
        shape = (config.format.rows.rows, config.format.dim)
        for name, part in (("model", model), ("critic", critic)):
            if part is not None and part.plan_shape != shape:
                raise ValueError(f"{name}: expected plans of shape {shape}, got {part.plan_shape}")
        if statistics.trajectory.dim != shape[1]:
            raise ValueError(f"statistics: expected {shape[1]} dimensions, got {statistics.trajectory.dim}")
        if observation.dim != config.format.spec.observation_dim:
            expected = config.format.spec.observation_dim
            raise ValueError(f"observation: expected a normaliser of {expected} values, got {observation.dim}")
        if config.actions == "inverse" and inverse is None:
            raise ValueError("actions='inverse' needs an inverse dynamics model, this planner has none")
        self.model, self.config = model.eval(), config
        self.statistics, self.observation = statistics.eval(), observation.eval()
        self.critic = None if critic is None else critic.eval()
        self.inverse = None if inverse is None else inverse.eval()
        self.reset(seed=0)

    def reset(self, *, seed: int) -> None:
        """Forget the last episode; all randomness of the next one follows from `seed`."""
        self._generator = torch.Generator().manual_seed(seed)
        self._previous: np.ndarray | None = None  # [H, D] the last plan in the units of the data

    @torch.no_grad()
    def plan(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        *,
        elapsed: int | None = None,
        budget: float | None = None,
        steps_left: int | None = None,
    ) -> SequencePlan:
        """A plan from the recent past.

        Args:
            observations: [L, o], the current one last; what is older than `format.history` steps is not used.
            actions: [L - 1, a] executed between them.
            elapsed: control steps since the last plan; None: `config.replan`.
            budget: cost that may still be spent in this episode, in cost units; None: not known, `config.budget` is
                asked for and the ranking heeds the value alone.
            steps_left: control steps until the episode ends; None: those of a whole episode.

        Raises:
            ValueError: observations of another width than the planner was trained for, NaN, an impossible `elapsed`.
        """
        config, form = self.config, self.config.format
        seen, done = form.past(observations, actions)
        if elapsed is not None and elapsed < 1:
            raise ValueError(f"elapsed: expected at least 1 control step, got {elapsed}")
        batch = {
            name: torch.from_numpy(value)
            for name, value in form.conditions(seen[None], done[None], self.observation).items()
        }
        known = torch.from_numpy(form.known_rows(seen, done))
        known = self.statistics.trajectory.normalize(known)
        allowed = None if budget is None else self._allowed(budget, steps_left)
        candidates = self._propose(batch, known, allowed, config.replan if elapsed is None else elapsed)
        estimate, scores = self._rank(candidates, batch, allowed)
        chosen = int(scores.argmax())
        rows = self.statistics.trajectory.denormalize(candidates)
        self._previous = rows[chosen].numpy()
        states = rows[:, form.history :, : form.state_dim].numpy()
        return SequencePlan(
            actions=self._actions(candidates[chosen : chosen + 1], batch),
            states=states[chosen],
            candidates=states,
            scores=scores.numpy(),
            values=estimate.value.numpy(),
            costs=estimate.cost.numpy(),
            chosen=chosen,
            allowed=allowed,
        )

    def _allowed(self, budget: float, steps_left: int | None) -> float:
        """The cost-to-go that spends `budget` evenly over the rest of the episode."""
        left = self.config.format.spec.max_steps if steps_left is None else max(1, steps_left)
        return max(0.0, float(budget)) * min(1.0, self.config.format.counted_steps / left)

    def _propose(self, batch: dict[str, Tensor], known: Tensor, allowed: float | None, elapsed: int) -> Tensor:
        """Candidates [C, H, D], normalised; the previous plan, moved on, is one of them."""
        config, form = self.config, self.config.format
        shape = (config.candidates, *self.model.plan_shape)
        values = torch.zeros(shape[1:])
        values[: form.history] = known
        mask = torch.zeros(shape[1:], dtype=torch.bool)
        mask[: form.history] = True
        previous = None
        if self._previous is not None:
            moved = torch.from_numpy(form.shifted(self._previous, elapsed))
            previous = torch.where(mask, values, self.statistics.trajectory.normalize(moved).clamp(-1, 1))[None]
        options: dict[str, Any] = {
            "generator": self._generator,
            "context": self.model.context(**batch, **self._wishes(allowed)).context,
            "guides": self._guides(batch, allowed),
            "inpaint": Inpaint(values[None], mask[None]),
            "steps": config.steps,
            "scheduler": replace(self.model.schedule, scheduler=config.scheduler),
            "temperature": config.temperature,
            "guidance_scale": config.guidance_scale,
        }
        if config.guidance_scale != 1.0:
            options["uncond_context"] = self.model.context(**batch).context
        warm = 0 if previous is None else int(config.candidates * config.warm_share)
        parts = []
        if config.candidates > warm:
            parts.append(sample(self.model, (config.candidates - warm, *shape[1:]), **options).sample)
        if previous is not None:
            if warm:
                options |= {"init": previous, "init_strength": config.warm_strength}
                parts.append(sample(self.model, (warm, *shape[1:]), **options).sample)
            if self.critic is not None:  # without a ranking nothing would ever replace it
                parts.append(previous)
        return torch.cat(parts)

    def _wishes(self, allowed: float | None) -> dict[str, Tensor | None]:
        config = self.config
        wanted = None if config.return_target is None else torch.tensor([config.return_target])
        budget = None if config.budget is None else torch.tensor([config.budget])
        if allowed is not None:
            normal = self.statistics.cost_budget.normalize(torch.tensor([[allowed]]))[0]
            budget = normal if budget is None else torch.minimum(budget, normal)
        if wanted is not None and budget is not None and config.frontier:
            within = [reached for cost, reached in config.frontier if cost <= float(budget)]
            wanted = wanted.clamp_max(within[-1] if within else config.frontier[0][1])
        return {"return_to_go": wanted, "cost_budget": budget}

    def _rank(self, plans: Tensor, batch: dict[str, Tensor], allowed: float | None) -> tuple[ValueEstimate, Tensor]:
        if self.critic is None:
            nothing = torch.zeros(len(plans))
            return ValueEstimate(nothing, nothing), nothing
        estimate = self.critic.predict(plans, **batch)
        return estimate, self._score(estimate, allowed)

    def _score(self, estimate: ValueEstimate, allowed: float | None) -> Tensor:
        """Value minus the penalty on what the cost exceeds the budget by, both in units of their spread [C]."""
        assert self.critic is not None
        scale = self.critic.target_scale
        score = estimate.value / scale[0]
        if allowed is None:
            return score
        return score - self.config.cost_penalty * (estimate.cost - allowed).clamp_min(0) / scale[1]

    def _guides(self, batch: dict[str, Tensor], allowed: float | None) -> list[Guide]:
        if not self.config.critic_guidance or self.critic is None:
            return []
        critic = self.critic
        return [
            Guide(
                lambda plans, t: self._score(critic.predict(plans, **batch), allowed),
                self.config.critic_guidance,
            )
        ]

    def _actions(self, plan: Tensor, batch: dict[str, Tensor]) -> np.ndarray:
        """Actions [T, A] of a normalised plan [1, H, D] from now on."""
        form = self.config.format
        if self.config.actions == "inverse" and self.inverse is not None:
            plan = plan.clone()
            read = self.inverse.read(batch["ego"], batch["tokens"], plan)
            plan[:, form.history : form.history + read.shape[1], form.state_dim :] = read
        rows = self.statistics.trajectory.denormalize(plan)[0, :, form.state_dim :]
        return form.rows.expand(rows)[form.history :].clamp(-1, 1).numpy().astype(np.float64)

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> None:
        """Write the planner to `folder`; with a model card as README.md. The marker comes last."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder / "diffusion")
        if self.critic is not None:
            self.critic.save_pretrained(folder / "critic")
        if self.inverse is not None:
            self.inverse.save_pretrained(folder / "inverse")
        write_json(folder / "statistics.json", self.statistics.to_dict() | {"observation": self.observation.to_dict()})
        if card is not None:
            write_text(folder / "README.md", card)
        write_json(folder / MARKER, self.config.to_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> SequencePlanner:
        """Read a planner; keyword arguments override settings of `SequencePlannerConfig`, the format excepted.

        Raises:
            ValueError: the folder is not such a planner, a file of it is damaged, or an unknown setting.
        """
        folder = Path(folder)
        if not (folder / MARKER).is_file():
            raise ValueError(f"{folder} holds no sequence planner: expected a {MARKER} in it")
        try:
            config = SequencePlannerConfig.from_dict(read_json(folder / MARKER))
            statistics = read_json(folder / "statistics.json")
            normalizers = WindowStatistics.from_dict(statistics), Normalizer.from_dict(statistics["observation"])
            model = TrajectoryDiffusion.from_pretrained(folder / "diffusion").float()
            critic = inverse = None
            if (folder / "critic").is_dir():
                critic = TrajectoryValue.from_pretrained(folder / "critic").float()
            if (folder / "inverse").is_dir():
                inverse = InverseDynamics.from_pretrained(folder / "inverse").float()
        except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"the planner in {folder} is damaged: {type(error).__name__}: {error}") from error
        unknown = set(overrides) - (set(config.to_dict()) - {"format"})
        if unknown:
            raise ValueError(f"unknown settings of a sequence planner: {', '.join(sorted(unknown))}")
        return cls(model, replace(config, **overrides), *normalizers, critic=critic, inverse=inverse)

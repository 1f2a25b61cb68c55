"""A planner's own plans in recorded situations: what they are worth to a teacher, and comparisons of them.

The scene is read back from the features that the planner sees, so that any plan score can label pairs of plans.
Rewards that shall choose among a planner's candidates have to tell apart plans of one situation, which differ by less
than segments of different episodes do; they learn it from comparisons of such plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffdecide.features import GEOMETRY, SceneTokens
from diffdecide.plan import PlanRows
from diffdecide.preference import PlanScore, SituatedScore
from diffdecide.sampling import sample
from reward_models.guide import imagined
from reward_models.pairs import LabelledPairs
from reward_models.plan_observations import PlanObservations
from reward_models.preferences import PreferenceError, Preferences
from reward_models.segments import Segments
from reward_models.teachers import Teacher
from safety.dynamics import Dynamics
from safety.layout import EnvSpec
from safety.scene import Scene

SITUATION = ("ego", "tokens", "token_mask", "goal")
PlanScorer = Callable[[Tensor, Mapping[str, Tensor]], np.ndarray]


def scene_of(features: SceneTokens) -> Scene:
    """The scene that features were made of, in the agent's own frame (pose 0), without the objects left out of them."""
    vx, vy, rate = (float(value) for value in features.ego[:3])
    rows = np.asarray(features.tokens, dtype=np.float64)[np.asarray(features.mask)]
    column = {name: rows[:, index] for index, name in enumerate(GEOMETRY)}
    return Scene(
        state=np.array([0.0, 0.0, 0.0, vx, vy, rate]),
        positions=np.stack([column["x"], column["y"]], 1),
        velocities=np.stack([column["vx"] + vx, column["vy"] + vy], 1),
        kinds=rows[:, len(GEOMETRY) :].argmax(1) if len(rows) else np.zeros(0, dtype=int),
        radii=column["radius"],
        sigma=np.zeros(len(rows)),
    )


def plan_scorer(score: PlanScore, rows: PlanRows, dynamics: Dynamics) -> PlanScorer:
    """What `dpo.pair_plans` asks for: (plans [N, H, 2] in motor commands, situations) -> what each is worth [N]."""

    @torch.no_grad()
    def worth(plans: Tensor, situations: Mapping[str, Tensor]) -> np.ndarray:
        values = np.empty(len(plans))
        for index in range(len(plans)):
            scene = scene_of(SceneTokens(*(situations[n][index].numpy() for n in ("ego", "tokens", "token_mask"))))
            situation = {name: situations[name][index : index + 1] for name in SITUATION if name in situations}
            judge = score.at(situation) if isinstance(score, SituatedScore) else score
            actions = dynamics.command(rows.expand(plans[index : index + 1]))
            state = torch.as_tensor(scene.state, dtype=actions.dtype)
            values[index] = float(judge(scene, torch.as_tensor(dynamics.rollout(state, actions)), actions)[0])
        return values

    return worth


@torch.no_grad()
def compare_plans(
    model: Any,
    situations: Mapping[str, Tensor],
    score: PlanScore,
    teacher: Teacher,
    *,
    spec: EnvSpec,
    rows: PlanRows,
    dynamics: Dynamics,
    generator: torch.Generator,
    rng: np.random.Generator,
    bayes_accuracy: float | None = None,
    steps: int = 5,
    chunk: int = 256,
) -> LabelledPairs:
    """Two plans of a planner in each situation as segments of imagined observations and actions; the teacher answers.

    Args:
        model: `TrajectoryDiffusion`.
        situations: ego [N, E], tokens [N, K, F], token_mask [N, K], goal [N, G].
        score: what a plan is worth to the teacher.
        spec: of the environment, whose observations are imagined along the plans.
        bayes_accuracy: choose the teacher's beta so that its Bayes rate on these pairs is this; None keeps beta.
        steps: of the sampler.

    Raises:
        PreferenceError: the teacher skips every pair.
    """
    count, observe = len(situations["ego"]), PlanObservations(spec)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    scores = np.empty((2, count))
    for start in range(0, count, chunk):
        part = {name: situations[name][start : start + chunk] for name in SITUATION}
        context = model.context(**part).context
        shape = (len(context), *model.plan_shape)
        drawn = [sample(model, shape, context=context, generator=generator, steps=steps).sample for _ in range(2)]
        for index in range(len(context)):
            scene = scene_of(SceneTokens(*(part[name][index].numpy() for name in SITUATION[:3])))
            actions = dynamics.command(rows.expand(torch.stack([side[index] for side in drawn])))
            states = torch.as_tensor(dynamics.rollout(torch.as_tensor(scene.state, dtype=actions.dtype), actions))
            situation = {name: value[index : index + 1] for name, value in part.items()}
            judge = score.at(situation) if isinstance(score, SituatedScore) else score
            scores[:, start + index] = judge(scene, states, actions).numpy()
            parts[0].append(imagined(observe, scene, states).numpy())
            parts[1].append(actions.numpy())
    if bayes_accuracy is not None:
        teacher = teacher.for_accuracy(scores[0], scores[1], bayes_accuracy)
    answers = teacher.answer(scores[0], scores[1], rng)
    kept = np.flatnonzero(answers.asked)
    if len(kept) == 0:
        raise PreferenceError(f"the teacher skipped all {count} pairs of plans")
    first, second = (
        Segments.of([parts[0][i][side] for i in kept], [parts[1][i][side] for i in kept]) for side in range(2)
    )
    names = np.array([f"situation {i}" for i in kept], dtype=object)
    data = Preferences(first, second, label=answers.label[kept], trajectory_1=names, trajectory_2=names)
    return LabelledPairs(
        data,
        np.where(answers.tie, 0.5, answers.probability)[kept],
        scores[0][kept],
        scores[1][kept],
        answers.bayes_accuracy,
        teacher.beta,
        count - len(kept),
    )

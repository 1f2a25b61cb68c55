"""`diffdecide run`: one sentence becomes a safe rollout."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from safety.caution import DEFAULT_MARGIN

if TYPE_CHECKING:
    from rich.console import Console

    from diffdecide.app.agent_policy import AgentPolicy
    from diffdecide.app.demo import Performance
    from diffdecide.app.rewards import RewardChoice
    from diffdecide.rollout import Step
    from lm_bridge.bridge import Understanding


@dataclass(frozen=True, kw_only=True)
class Run:
    """One sentence becomes a safe rollout: prints what was understood, writes summary.json, rollout.gif, plan.png.

    An instruction that is not understood with confidence is declined with exit code 2, and nothing is written.
    """

    text: Annotated[str, tyro.conf.Positional]
    """What to do, in English: "go to the green zone, then the red one, and keep well clear of the hazards"."""
    env: str = "SafetyPointZones1-v0"
    """Environment id."""
    planner: str = "default"
    """"default" (the embedded planner of the environment) or a folder with one."""
    instruct_model: str = "default"
    """"default" (the embedded language bridge) or a folder with one."""
    seed: int = 7
    """Of the first episode's layout and randomness."""
    episodes: int = 1
    """Episodes with the same instruction; pictures are of the first."""
    reward: Path | None = None
    """A folder with a learned reward that chooses among the planner's candidates; filter and limits stay."""
    reward_weight: float = 0.1
    """What a candidate gains that is one standard deviation better than the mean one, in about metres of way."""
    margin: float = DEFAULT_MARGIN
    """Metres that the filter keeps from every hazard. Words can add to it, never take from it."""
    cost_limit: float = 0.0
    """Cost per episode that may be spent."""
    out: Path = Path("out/run")
    """Folder for what is written: all of it or nothing."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("margin", "cost_limit"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"--{name.replace('_', '-')} must be a finite number >= 0, got {value}")

    def execute(self) -> int:
        from rich.console import Console

        from diffdecide.app.results import staged_folder
        from safety.envs import spec

        console = Console()
        env_spec = spec(self.env)
        rewards = self._rewards()
        with staged_folder(self.out) as folder:
            console.print("loading the models ...", style="dim")
            import torch

            # Of a library about another one: nothing that a user could act on.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            from diffdecide.app.agent import AgentConfig
            from diffdecide.app.agent_policy import AgentPolicy, PolicyConfig, find_planner
            from diffdecide.app.demo import Declined, understand, write_performance

            torch.set_num_threads(1)  # many small operations: more threads are slower, and sums could differ
            config = PolicyConfig(
                planner=str(find_planner(self.planner, self.env)),
                language="bridge",
                bridge=self.instruct_model,
                agent=AgentConfig(margin=self.margin, cost_limit=self.cost_limit),
                rewards=rewards,
            )
            policy = AgentPolicy(config)
            try:
                understanding = understand(policy, self.text, env_spec)
            except Declined as declined:
                _show(console, declined.understanding, None)
                raise
            _show(console, understanding, policy.agent.margin)
            performance = self._perform(policy, understanding)
            summary = performance.summary(config, env_id=self.env, seed=self.seed)
            write_performance(performance, summary, folder)
        self._report(console, performance)
        return 0

    def _rewards(self) -> tuple[RewardChoice, ...]:
        if self.reward is None:
            return ()
        from diffdecide.app.rewards import RewardChoice

        return (RewardChoice(folder=str(self.reward), weight=self.reward_weight),)

    def _perform(self, policy: AgentPolicy, understanding: Understanding) -> Performance:
        from tqdm import tqdm

        from diffdecide.app.demo import perform
        from safety.envs import spec

        env_spec = spec(self.env)
        with tqdm(total=env_spec.max_steps * self.episodes, desc="driving", unit="step") as bar:

            def advance(number: int, step: Step) -> None:
                bar.update(number * env_spec.max_steps + step.index + 1 - bar.n)

            performance = perform(
                policy, understanding, env_spec, seed=self.seed, episodes=self.episodes, on_step=advance
            )
            bar.total = sum(record.length for record in performance.records)  # tasks end when they are done
            bar.n = bar.total
            bar.refresh()
        return performance

    def _report(self, console: Console, performance: Performance) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None)
        for title in ("seed", "outcome", "return", "cost", "steps", "filtered", "unsafe", "ms/step"):
            table.add_column(title, justify="left" if title == "outcome" else "right")
        for record in performance.records:
            reason = str(record.details.get("reason") or "")
            outcome = "–" if record.success is None else ("done: " if record.success else "not done: ") + reason
            numbers = (f"{record.return_:.1f}", f"{record.cost:g}", record.length, record.interventions)
            times = f"{record.control_ms:.1f}" if record.control_ms is not None else "–"
            table.add_row(
                str(record.seed), escape(outcome.rstrip(": ")), *map(str, numbers), str(record.infeasible), times
            )
        console.print(table)
        console.print(f"written to {escape(str(self.out))}: summary.json, rollout.gif, plan.png")


def _show(console: Console, understanding: Understanding, margin: float | None) -> None:
    """What was understood, as a table; also of what was declined."""
    from rich.markup import escape
    from rich.table import Table

    title = f"“{understanding.text.strip()[:200]}”"
    table = Table(title=escape(title), title_justify="left", show_header=False, min_width=40)
    table.add_column(style="bold")
    table.add_column()
    table.add_column(justify="right", style="dim")
    sure = understanding.confidence
    for name, title in (("kind", "task"), ("targets", "go to"), ("avoid", "never enter"), ("caution", "caution")):
        value = understanding.heard.get(name)
        if value is None:
            continue
        text = ", then ".join(value) if isinstance(value, list) and name == "targets" else value
        text = ", ".join(text) if isinstance(text, list) else str(text)
        table.add_row(title, escape(text or "–"), f"{sure[name]:.0%}" if name in sure else "")
    if margin is not None:
        table.add_row("margin kept", f"{margin:.2f} m", "")
    if understanding.refused:
        table.add_row("declined", escape(understanding.reason), "")
    console.print(table)


COMMAND = Run

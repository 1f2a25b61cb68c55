"""`diffdecide label`: preference data from scripted teachers, from people, and from other projects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from diffdecide.app.cli.label_import import LabelChosen, LabelImport

if TYPE_CHECKING:
    from diffdecide.data.episode import Episode


@dataclass(frozen=True, kw_only=True)
class LabelTeacher:
    """Let a scripted teacher compare segments of episodes; its Bayes rate is printed and kept beside the data."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Episode files."""
    out: Path
    """Parquet file to write."""
    pairs: int = 5000
    segment: int = 20
    """Steps of a segment."""
    score: Literal["return", "cost", "smooth", "unhurried"] = "return"
    """What the teacher likes: high return, low cost, smooth motion, smooth and effortless motion."""
    beta: float = 1.0
    """Rationality."""
    bayes_accuracy: float | None = None
    """Choose beta so that the best possible accuracy is this."""
    gamma: float = 1.0
    """Below 1 the teacher looks at the end of a segment."""
    mistakes: float = 0.0
    ties_within: float = 0.0
    skip_below: float | None = None
    first: int = 0
    """Number of the first episode to use."""
    episodes: int | None = None
    """How many episodes to use; all without it. Keep those for testing apart."""
    seed: int = 0
    prompt: str | None = None
    """Stored with every comparison."""

    def execute(self) -> int:
        import numpy as np

        from diffdecide.files import require_writable_folder, write_json
        from reward_models.pairs import label_episodes
        from reward_models.preference_files import write_preferences
        from reward_models.teachers import SCORES, Teacher

        teacher = Teacher(
            beta=self.beta,
            gamma=self.gamma,
            mistake=self.mistakes,
            skip_below=self.skip_below,
            tie_within=self.ties_within,
        )
        episodes = _read(self.data)
        stop = None if self.episodes is None else self.first + self.episodes
        chosen = episodes[self.first : stop]
        if not chosen:
            raise ValueError(f"--first {self.first}: there are only {len(episodes)} episodes")
        require_writable_folder(self.out.parent)
        made = label_episodes(
            chosen,
            pairs=self.pairs,
            score=SCORES[self.score],
            teacher=teacher,
            rng=np.random.default_rng(self.seed),
            length=self.segment,
            bayes_accuracy=self.bayes_accuracy,
            annotator=f"teacher:{self.score}",
            prompt=self.prompt,
        )
        write_preferences(made.data, self.out)
        facts = {
            "pairs": len(made.data),
            "skipped": made.skipped,
            "ties": int((made.data.label == 0.5).sum()),
            "beta": made.beta,
            "bayes_accuracy": made.bayes_accuracy,
            "score": self.score,
            "segment": self.segment,
            "episodes": len(chosen),
            "seed": self.seed,
        }
        write_json(self.out.with_suffix(".json"), facts)
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
        print(f"written to {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class LabelPage:
    """Show pairs of rollouts in the browser and store each answer as it comes; run it again to go on."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Episode files."""
    out: Path
    """File of answers (JSON lines); `diffdecide label export` makes a data set of it."""
    pairs: int = 100
    segment: int = 100
    """Steps of a segment."""
    seed: int = 0
    port: int = 8777
    """0 takes a free one."""
    annotator: str = "person"

    def execute(self) -> int:
        import numpy as np

        from diffdecide.data.episode import fingerprint
        from diffdecide.files import require_writable_folder
        from reward_models.labelling.server import LabelServer
        from reward_models.labelling.store import LabelStore, questions
        from safety import envs

        episodes = _read(self.data)
        env_id = episodes[0].metadata.get("env_id")
        if env_id is None:
            raise ValueError(f"{self.data[0]}: an episode's metadata lacks env_id, so its observations cannot be drawn")
        require_writable_folder(self.out.parent)
        asked = questions(episodes, self.pairs, self.segment, np.random.default_rng(self.seed))
        settings = f"{fingerprint(episodes)}/{self.seed}/{self.segment}"
        store = LabelStore(self.out, fingerprint=settings)
        server = LabelServer(store, asked, episodes, envs.spec(env_id), port=self.port, annotator=self.annotator)
        print(f"{len(store.answers)} of {len(asked)} answered; open {server.url} (Ctrl-C ends, nothing is lost)")
        try:
            server.serve()
        except KeyboardInterrupt:
            print(f"\n{len(store.answers)} of {len(asked)} answered, stored in {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class LabelExport:
    """Turn the answers of `diffdecide label page` into a preference data set."""

    answers: Annotated[Path, tyro.conf.Positional]
    data: tuple[Path, ...]
    """The episode files that were shown, in the same order."""
    out: Path
    """Parquet file to write."""
    segment: int = 100
    seed: int = 0

    def execute(self) -> int:
        from diffdecide.data.episode import fingerprint
        from reward_models.labelling.store import LabelStore
        from reward_models.preference_files import write_preferences
        from reward_models.preferences import doubles

        if not self.answers.is_file():
            raise ValueError(f"{self.answers}: no such file")
        episodes = _read(self.data)
        settings = f"{fingerprint(episodes)}/{self.seed}/{self.segment}"
        data = LabelStore(self.answers, fingerprint=settings).preferences(episodes)
        write_preferences(data, self.out)
        print(f"{len(data)} comparisons, {doubles(data)}; written to {self.out}")
        return 0


@dataclass(frozen=True, kw_only=True)
class LabelCheck:
    """Check a preference data set and report repeated and contradictory comparisons."""

    data: Annotated[str, tyro.conf.Positional]
    """Parquet file, folder or hub id."""

    def execute(self) -> int:
        from reward_models.preference_files import read_preferences
        from reward_models.preferences import doubles

        data = read_preferences(self.data)
        ties = int((data.label == 0.5).sum())
        print(
            f"{len(data)} comparisons of segments of up to {data.longest} steps, observations {data.observation_dim} "
            f"and actions {data.action_dim} wide; {ties} ties; {doubles(data)}"
        )
        return 0


@dataclass(frozen=True, kw_only=True)
class LabelRewards:
    """Relabel episodes with a learned reward; costs stay as recorded."""

    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Episode files."""
    reward: Path
    """Folder of a reward model."""
    out: Path
    """HDF5 file to write."""
    prompt: str | None = None
    """What was asked for, for a reward that depends on it."""

    def execute(self) -> int:
        from diffdecide.data.writers import write_hdf5
        from reward_models.model import RewardModel
        from reward_models.relabel import relabel

        model = RewardModel.from_pretrained(self.reward)
        if bool(model.config.prompt_dim) != (self.prompt is not None):
            needs = "needs a --prompt" if model.config.prompt_dim else "takes no --prompt"
            raise ValueError(f"{self.reward}: this reward model {needs}")
        prompt = None if self.prompt is None else model.embed(self.prompt)
        episodes = list(relabel(_read(self.data), model, prompt=prompt))
        write_hdf5(self.out, episodes)
        print(f"{len(episodes)} episodes written to {self.out}")
        return 0


def _read(files: tuple[Path, ...]) -> list[Episode]:
    from diffdecide.data.readers import read

    if not files:
        raise ValueError("expected at least one episode file")
    return [episode for file in files for episode in read(file)]


COMMANDS = {
    "teacher": LabelTeacher,
    "page": LabelPage,
    "export": LabelExport,
    "import": LabelImport,
    "chosen": LabelChosen,
    "check": LabelCheck,
    "rewards": LabelRewards,
}

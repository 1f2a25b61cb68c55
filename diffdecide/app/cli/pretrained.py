"""`diffdecide pretrained`: make all embedded models again, from nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from diffdecide.app.embedded import ROOT
from diffdecide.app.recipe import Model, Step, models_named, steps_for
from diffdecide.files import read_json, require_writable_folder, write_json


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Make all embedded models again: collect the data, train, and put the results into the package.

    Hours on two cores. Steps that are done are not done again, so an interrupted run goes on where it stopped.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Folders of models to make (point, car, point_cloning, car_cloning, bridge); all where none is named."""
    data: Path = Path("data")
    """Folder for the data files."""
    runs: Path = Path("runs/pretrained")
    """Folder for training runs and the notes on what is done."""
    out: Path = ROOT
    """Folder that receives the models."""
    benchmarks: Path = Path("benchmarks")
    """Results that the model cards show."""
    workers: int = 2
    list: bool = False
    """Only show the steps."""
    cards: bool = False
    """Only write the model cards again, from recorded facts and results."""
    rehearse: Path | None = None
    """Do every step with next to no data and training, all below this folder: minutes, to see that the way is clear."""

    rehearsal: tyro.conf.Suppress[bool] = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"--workers must be at least 1, got {self.workers}")

    def execute(self) -> int:
        models = models_named(self.models)
        if self.rehearse is not None:
            root = self.rehearse
            own = replace(self, rehearse=None, data=root / "data", runs=root / "runs", out=root / "models")
            return replace(own, rehearsal=True).execute()
        if self.list:
            self._show(models)
            return 0
        from diffdecide.app.publish import publish, write_card

        if self.cards:
            for model in models:
                if model.kind != "bridge" and (self.out / model.folder).is_dir():
                    write_card(model, self.out / model.folder, self.benchmarks)
                    print(f"card of {model.folder} written")
            return 0
        for folder in (self.data, self.runs, self.out):
            require_writable_folder(folder)
        for step in steps_for(models):
            self._do(step)
        for model in models:
            publish(model, self.runs / model.run, self.out / model.folder, self.benchmarks)
            print(f"{model.folder}: in {self.out / model.folder}")
        return 0

    def _places(self) -> dict[str, str]:
        return {"data": str(self.data), "runs": str(self.runs), "workers": str(self.workers)}

    def _show(self, models: tuple[Model, ...]) -> None:
        for step in steps_for(models):
            done = "done" if self._is_done(step) else "open"
            minutes = "" if step.minutes is None else f"  (about {step.minutes:g} min)"
            print(f"{done}  diffdecide {' '.join(step.command(self._places(), rehearsal=self.rehearsal))}{minutes}")

    def _note(self, step: Step) -> Path:
        return self.runs / "done" / f"{step.name}.json"

    def _is_done(self, step: Step) -> bool:
        note = self._note(step)
        # The words as they stand in the recipe: a changed recipe is another step, another number of workers is not.
        return note.is_file() and read_json(note).get("words") == [*step.words]

    def _do(self, step: Step) -> None:
        if self._is_done(step):
            print(f"{step.name}: done before")
            return
        words = step.command(self._places(), rehearsal=self.rehearsal) + (["--resume"] if step.trains else [])
        print(f"{step.name}: diffdecide {' '.join(words)}", flush=True)
        began = time.perf_counter()
        # A process of its own: nothing of one step is left in the memory or the random state of the next.
        code = subprocess.run([sys.executable, "-m", "diffdecide.app", *words]).returncode
        if code:
            raise RuntimeError(f"step {step.name} failed with exit code {code}; run the command again to go on")
        write_json(self._note(step), {"words": [*step.words], "minutes": (time.perf_counter() - began) / 60})


COMMAND = Pretrained

"""`diffdecide bench sac-data`: data files of a learner, for tasks that no controller of ours can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from diffdecide.app.bench.sac_data import SACDataConfig


@dataclass(frozen=True, kw_only=True)
class BenchSACData:
    """Train SAC (Stable-Baselines3) and write every episode it learned from, costs included, into one HDF5 file."""

    config: Annotated[SACDataConfig, tyro.conf.arg(name="")]

    def execute(self) -> int:
        from diffdecide.app.bench.sac_data import collect_sac
        from diffdecide.app.bench.safe_rl_report import data_table
        from diffdecide.app.bench.timing import one_core
        from diffdecide.files import require_writable_folder

        require_writable_folder(self.config.out.parent)
        with one_core():
            path = collect_sac(self.config)
        print(data_table({self.config.env: str(path)}))
        print(f"written to {path}")
        return 0

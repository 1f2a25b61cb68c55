"""`diffdecide collect`: episodes of behaviour policies into one HDF5 file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from diffdecide.data.collect import CollectConfig
from safety.caution import DEFAULT_MARGIN


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Collect episodes with behaviour policies of chosen skill, risk and noise.

    Every episode follows from its seed, whatever the number of workers. A run that was stopped goes on when it is
    started again with the same options; with more --episodes it is extended.
    """

    config: Annotated[CollectConfig, tyro.conf.arg(name="")]
    driver: str | None = None
    """With --behaviour policy: who drives while the MPC labels the states that are visited (DAgger): "default", a
    folder with a planner, or another policy of `diffdecide evaluate`."""
    driver_filter: bool = True
    """Put the safety filter behind the driver."""
    driver_margin: float = DEFAULT_MARGIN
    """Metres that the driver's filter keeps."""

    def __post_init__(self) -> None:
        if (self.driver is None) == (self.config.behaviour == "policy"):
            raise ValueError("--driver goes with --behaviour policy and with no other")
        if not self.driver_margin >= 0:
            raise ValueError(f"--driver-margin must be >= 0, got {self.driver_margin}")

    def execute(self) -> int:
        from diffdecide.app.policies import policy_factory
        from diffdecide.data.collect import collect
        from diffdecide.files import require_writable_folder
        from safety.envs import spec

        env_spec = spec(self.config.env)
        require_writable_folder(self.config.out.parent)
        driver = None
        if self.driver is not None:
            driver = policy_factory(
                self.driver, env_spec, filtered=self.driver_filter, margin=self.driver_margin, cost_limit=0.0
            )
        path = collect(self.config, driver=driver)
        print(f"written to {path}")
        return 0


COMMAND = Collect

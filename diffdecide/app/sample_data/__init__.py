"""A few short episodes per environment, for tests, quick starts and examples. Far too few to learn from.

`python -m diffdecide.app.sample_data --out FOLDER` makes the files again.
"""

from __future__ import annotations

from pathlib import Path

ENVIRONMENTS = ("SafetyPointGoal1-v0", "SafetyPointZones1-v0", "SafetyCarGoal1-v0", "SafetyCarZones1-v0")


def sample_file(env_id: str) -> Path:
    """The HDF5 file (DSRL's keys and our extras) with sample episodes of `env_id`.

    Raises:
        ValueError: there are none of this environment.
    """
    if env_id not in ENVIRONMENTS:
        raise ValueError(f"there are no sample episodes of {env_id!r}, only of {', '.join(ENVIRONMENTS)}")
    return Path(__file__).parent / f"{env_id}.hdf5"

"""Noise that does not depend on how a batch is spread over processes.

Row i of a global batch gets the same noise whether one process holds the whole batch or two hold half each. So two
processes train exactly what one process with a double batch trains, and a resumed run repeats the interrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch


class RowGenerator(torch.Generator):
    """A CPU generator that knows which rows of the global batch this process holds.

    `randn`, `rand` and `randint` of this module draw the global batch from `shared`, which is seeded alike in every
    process, and return rows `start` to `start + rows`. Code that passes the generator straight to torch gets a stream
    of its own per process: sound noise, though not independent of the number of processes.

    Args:
        seed: integers that name this draw, such as (seed, step).
        start: index of the first row held here.
        total: rows in the global batch; a multiple of the rows that are asked for is not needed.
    """

    shared: torch.Generator
    start: int
    total: int

    def __new__(cls, seed: Sequence[int], *, start: int, total: int) -> RowGenerator:
        return super().__new__(cls, device="cpu")

    def __init__(self, seed: Sequence[int], *, start: int, total: int) -> None:
        if not 0 <= start < total:
            raise ValueError(f"start must lie in [0, total), got {start=} and {total=}")
        self.shared = torch.Generator().manual_seed(key(*seed))
        self.start, self.total = start, total
        self.manual_seed(key(*seed, 1 + start))


def key(*parts: int) -> int:
    """Mix integers into one 63-bit seed (the finaliser of splitmix64, Steele et al. 2014, folded over the parts)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state ^ (part & (2**64 - 1))) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state & (2**63 - 1)


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed torch's global state inside the block and restore it behind: for code that knows no other randomness.

    Initial weights and dropout of torch layers are such code: `with seeded(7): network = ResidualMLP(8, 2)`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(key(*parts))
        yield


def randn(shape: Sequence[int], generator: torch.Generator, *, like: torch.Tensor) -> torch.Tensor:
    """Standard normal tensor [*shape] on the device and with the dtype of `like`."""
    return _draw(lambda size, source: torch.randn(size, generator=source, device=source.device), shape, generator, like)


def rand(shape: Sequence[int], generator: torch.Generator, *, like: torch.Tensor) -> torch.Tensor:
    """Uniform tensor [*shape] in [0, 1) on the device and with the dtype of `like`."""
    return _draw(lambda size, source: torch.rand(size, generator=source, device=source.device), shape, generator, like)


def randint(high: int, shape: Sequence[int], generator: torch.Generator, *, device: torch.device) -> torch.Tensor:
    """Integers [*shape] (int64) in [0, high)."""
    like = torch.empty((), dtype=torch.int64, device=device)
    return _draw(
        lambda size, source: torch.randint(high, size, generator=source, device=source.device), shape, generator, like
    )


def _draw(draw: Callable, shape: Sequence[int], generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    if not isinstance(generator, RowGenerator):
        return draw(tuple(shape), generator).to(like)
    rows = shape[0]
    if generator.start + rows > generator.total:
        raise ValueError(
            f"asked for {rows} rows from row {generator.start} on, but the global batch has {generator.total} rows"
        )
    whole = draw((generator.total, *shape[1:]), generator.shared)
    return whole[generator.start : generator.start + rows].to(like)

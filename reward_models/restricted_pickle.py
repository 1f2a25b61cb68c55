"""Reading pickles of plain numbers without running what else a pickle may hold.

A pickle is a program. This reader knows numpy arrays and Python's own containers, and refuses every other name in it.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from reward_models.preferences import PreferenceError

_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # how protocol 2 writes the bytes of an array
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise PreferenceError(f"the pickle asks for {module}.{name}, which is no plain number or array; not loaded")
        return super().find_class(module, name)


def load_numbers(path: str | Path, *, allow_pickle: bool) -> Any:
    """What a pickle of arrays, lists and numbers holds.

    Args:
        allow_pickle: must be True: reading a pickle is the caller's decision.

    Raises:
        ValueError: without the flag.
        PreferenceError: not a pickle, or one that holds anything else.
    """
    if not allow_pickle:
        raise ValueError(f"{path} is a pickle: pass allow_pickle=True (--allow-pickle) to read it, numbers only")
    try:
        with Path(path).open("rb") as file:
            return _Restricted(file).load()
    except PreferenceError as error:
        raise PreferenceError(f"{path}: {error}") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, ValueError, KeyError, TypeError) as error:
        raise PreferenceError(f"{path}: expected a pickle of numbers ({error})") from None

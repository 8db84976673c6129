"""Compiles the inner loops of algorithms, once per machine where that can be kept, else once per run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def compiled(function: Kernel) -> Kernel:
    """Compile a function of arrays and numbers when it is first called; it runs without holding the interpreter.

    What is compiled is kept next to the source, or where that is not writable in the user's own cache. Where neither
    is, as in a read-only container, nothing is kept, and every run compiles for a second or two.
    """
    kernel: Any
    try:
        kernel = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba's "cannot cache function: no locator available"
        kernel = njit(nogil=True)(function)
    result: Kernel = kernel
    return result

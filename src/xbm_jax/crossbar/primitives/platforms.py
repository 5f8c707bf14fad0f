"""Two forms of one computation: the faster one on a CPU, and the one for everything else.

Which is taken is decided where a program is lowered, by the platform that it is lowered for, not by asking the process:
a machine with a GPU computes on its CPU too, and a machine without one exports programs for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import jax

__all__ = ["by_platform", "here", "known"]

known = jax.make_user_context(None)
"""``with known(True):`` what is traced within is for a CPU, ``known(False)``: is not. One form alone is traced then."""


def by_platform(cpu: Callable[..., Any], other: Callable[..., Any], *args: Any) -> Any:
    """``cpu(*args)`` in programs for a CPU, ``other(*args)`` in all others; what both give has the same shapes.

    Both are traced, one is lowered. Within one of the two it is known already what a further choice has to be.
    """
    on_cpu = known.value
    if on_cpu is not None:
        return (cpu if on_cpu else other)(*args)
    return jax.lax.platform_dependent(*args, cpu=_within(True, cpu), default=_within(False, other))


@contextmanager
def here() -> Iterator[None]:
    """``with here():`` what is traced within is for this process, and for a CPU alone where it has nothing else.

    For commands, which lower for nobody else: one form is traced instead of two.
    """
    with known(True) if jax.default_backend() == "cpu" else nullcontext():
        yield


def _within(on_cpu: bool, form: Callable[..., Any]) -> Callable[..., Any]:
    def traced(*args: Any) -> Any:
        with known(on_cpu):
            return form(*args)

    return traced

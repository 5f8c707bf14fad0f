"""One command in a process of its own that notes where its seconds go: ``python -m benchmarks.waited NOTES SPAWNED``.

NOTES: the file that it writes. SPAWNED: when the process was asked for, in seconds since the epoch. All arguments
behind these two are those of ``xbm``.

Functions of the package are wrapped by name, so that nothing in it has to know of this; what JAX traces, lowers,
compiles and loads says so by itself. An instant of the main thread belongs to the innermost of what goes on: an XLA
compilation within a training step is the compilation's. What belongs to nothing is the rest.
"""

from __future__ import annotations

import time

BEGAN = time.time()

import builtins  # noqa: E402
import functools  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections import defaultdict  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

__all__ = ["BESIDE", "EVENTS", "GOALS", "PHASES", "WRAPPED", "Span", "found", "main", "owned", "owned_beside"]

EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "XLA compile",
    "/jax/compilation_cache/cache_retrieval_time_sec": "cache load",
}

_QUICKSTART = "xbm_jax.cli.quickstart"
WRAPPED: tuple[tuple[str, str, str], ...] = (
    ("chip", _QUICKSTART, "load_backbone"),
    ("chip", _QUICKSTART, "program"),
    ("input", _QUICKSTART, "load"),
    ("input", _QUICKSTART, "for_chip"),
    ("input", "xbm_jax.training.loop", "made_ahead"),
    ("training steps", "xbm_jax.training.learning", "advance"),
    ("evaluation", "xbm_jax.training.loop", "score"),
    ("evaluation", "xbm_jax.training.learning", "finished"),
    ("evaluation", _QUICKSTART, "_effect_of_chip"),
    ("evaluation", _QUICKSTART, "predict"),
    ("saving", _QUICKSTART, "save_chip"),
    ("saving", "xbm_jax.banks.bank", "MaskBank.put"),
    ("saving", "xbm_jax.training.saved", "Watch.states"),
    ("saving", "xbm_jax.training.saved", "Watch.ended"),
    ("saving", "xbm_jax.training.saved", "Watch.done"),
    ("saving", "xbm_jax.training.writer", "Writer.__exit__"),
    ("second process", _QUICKSTART, "_reopened_and_inspected"),
    ("figure", "xbm_jax.report", "accuracy_against_bits"),
    ("page", "xbm_jax.report", "write_report"),
    ("page", _QUICKSTART, "_inspected"),
    ("page", _QUICKSTART, "_write_page"),
)
"""What is waited for, and the function that does it, by the module that calls it."""

FIRST_ROW = (_QUICKSTART, "_row")

BESIDE = "in other threads"

_PROGRAMS = 12
"""Programs that are named, those that took longest to compile or to read."""

GOALS: dict[str, dict[str, float | None]] = {
    "cold": {"total": 100.0, "first_row": 15.0},
    "warm": {"total": 60.0, "first_row": None},
}

PHASES = (
    *("start of Python", "import", "chip", "input", "trace", "lowering", "XLA compile", "cache load"),
    *("training steps", "evaluation", "saving", "second process", "figure", "page", "leaving", "rest"),
)
"""What is waited for, in about the order in which it begins; ``rest``: what none of them explains."""


class Span(NamedTuple):
    """Something that went on in a thread, in seconds since the epoch."""

    name: str
    start: float
    end: float
    thread: int


def main(notes: str, spawned: str, *args: str) -> None:
    """Run the command, and write down where its seconds went, whatever becomes of it."""
    spans: list[Span] = []
    rows: list[float] = []
    programs: dict[str, float] = defaultdict(float)
    _watch_imports(spans)
    import jax

    jax.monitoring.register_event_duration_secs_listener(functools.partial(_heard, spans, programs))
    from xbm_jax.cli import main as command

    for name, module, attribute in WRAPPED:
        _wrap(module, attribute, functools.partial(_timed, spans, name))
    _wrap(*FIRST_ROW, functools.partial(_noted, rows))
    try:
        command(list(args))
    finally:
        own = owned(spans, threading.get_ident(), BEGAN, (end := time.time()))
        beside = owned_beside(spans, threading.get_ident())
        first = rows[0] - float(spawned) if rows else None
        own = {"start of Python": BEGAN - float(spawned)} | own
        longest = sorted(programs, key=programs.__getitem__, reverse=True)[:_PROGRAMS]
        noted = {"seconds": own, BESIDE: beside, "programs": {name: programs[name] for name in longest}}
        Path(notes).write_text(json.dumps(noted | {"first_row": first, "end": end}))


def owned(spans: Sequence[Span], thread: int, began: float, ended: float) -> dict[str, float]:
    """Seconds of one thread by what was innermost, and of nothing: ``rest``. They add up to ``ended - began``."""
    own: dict[str, float] = defaultdict(float)
    open_: list[Span] = [Span("rest", began, ended, thread)]
    at = began

    def until(moment: float) -> None:
        """Count up to a moment, closing what ends before it."""
        nonlocal at
        while len(open_) > 1 and open_[-1].end <= moment:
            own[open_[-1].name] += open_[-1].end - at
            at = open_.pop().end
        own[open_[-1].name] += moment - at
        at = moment

    for span in sorted((s for s in spans if s.thread == thread), key=lambda s: (s.start, -s.end)):
        start = min(max(span.start, at), ended)
        until(start)
        # What JAX reports ends a little after it did: nothing lasts longer than what it is in.
        open_.append(span._replace(start=start, end=max(start, min(span.end, open_[-1].end))))
    until(ended)
    return dict(own)


def owned_beside(spans: Sequence[Span], thread: int) -> dict[str, float]:
    """Seconds of all other threads, each by what was innermost; they went on while the main one did something too."""
    total: dict[str, float] = defaultdict(float)
    for other in {span.thread for span in spans} - {thread}:
        own = [span for span in spans if span.thread == other]
        for name, seconds in owned(own, other, min(s.start for s in own), max(s.end for s in own)).items():
            total[name] += seconds
    return {name: seconds for name, seconds in total.items() if name != "rest"}


def found(module: str, attribute: str) -> tuple[Any, str, Any]:
    """What holds a function, its name there, and the function."""
    holder: Any = importlib.import_module(module)
    *classes, name = attribute.split(".")
    for part in classes:
        holder = getattr(holder, part)
    return holder, name, getattr(holder, name)


def _wrap(module: str, attribute: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    holder, name, function = found(module, attribute)
    setattr(holder, name, functools.wraps(function)(wrapper(function)))


def _timed(spans: list[Span], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.time()
        try:
            made = function(*args, **kwargs)
        finally:
            spans.append(Span(name, start, time.time(), threading.get_ident()))
        return _drawn(spans, name, made) if isinstance(made, Iterator) else made

    return call


def _drawn(spans: list[Span], name: str, items: Iterator[Any]) -> Iterator[Any]:
    """What an iterator gives; the time is that of waiting for the next."""
    while True:
        start = time.time()
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            spans.append(Span(name, start, time.time(), threading.get_ident()))
        yield item


def _noted(rows: list[float], function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        rows.append(time.time())
        return made

    return call


def _heard(spans: list[Span], programs: dict[str, float], event: str, duration_secs: float, **about: Any) -> None:
    """Note what JAX reports; by program what is compiled, or read from the cache in place of it."""
    if event in EVENTS:
        spans.append(Span(EVENTS[event], (now := time.time()) - duration_secs, now, threading.get_ident()))
        if EVENTS[event] == "XLA compile":
            programs[str(about.get("fun_name"))] += duration_secs


def _watch_imports(spans: list[Span]) -> None:
    """Note every import that takes time, those within functions too."""
    plain = builtins.__import__

    def noted(name: str, *args: Any, **kwargs: Any) -> Any:
        start = time.time()
        try:
            return plain(name, *args, **kwargs)
        finally:
            if (end := time.time()) - start > 1e-3:
                spans.append(Span("import", start, end, threading.get_ident()))

    builtins.__import__ = noted


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The program that scores is compiled in a thread, while the first step is: once, and with nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import jax
import pytest

from tasks import tiny
from xbm_jax.data import Augment
from xbm_jax.training import Recipe, adapt, adapt_together

loop, scoring = (import_module(f"xbm_jax.training.{name}") for name in ("loop", "scoring"))
OTHER = Recipe(epochs=2, batch_size=13, eval_batch_size=17)
"""Of sizes that no other test has: nothing of it was compiled before."""
SCORES, STEP = "jit(_batch_features)", "jit(train_step)"


@pytest.fixture
def compiled() -> Iterator[list[tuple[str, bool]]]:
    """``(program, whether it was on the main thread)`` of all that is compiled from now on."""
    found: list[tuple[str, bool]] = []

    def noted(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del duration_secs
        if event.endswith("backend_compile_duration"):
            found.append((str(kwargs.get("fun_name", "")), threading.current_thread() is threading.main_thread()))

    jax.monitoring.register_event_duration_secs_listener(noted)
    yield found
    jax.monitoring.unregister_event_duration_listener(noted)


def learned(kind: str = "ideal", **options: Any) -> Any:
    given = {"method": tiny.METHODS["norm_only-affine"], "config": OTHER} | options
    return adapt(tiny.chip(kind), tiny.stripes(), key=jax.random.key(1), **given)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"kind": "noisy"}, marks=pytest.mark.slow),
        pytest.param(
            {"config": Recipe(epochs=1, batch_size=11, eval_batch_size=19, augment=Augment(size=10))},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "noisy", "augmented"],
)
def test_it_is_compiled_once_and_in_a_thread(options: dict[str, Any], compiled: list[tuple[str, bool]]) -> None:
    threads = set(threading.enumerate())
    learned(**options)
    assert [main for name, main in compiled if name == SCORES] == [False]
    assert [main for name, main in compiled if name == STEP] == [True]
    assert not {thread for thread in threading.enumerate() if thread.is_alive()} - threads


@pytest.mark.slow
def test_tasks_that_are_learned_together_have_one(compiled: list[tuple[str, bool]]) -> None:
    keys = list(jax.random.split(jax.random.key(1), 2))
    method, config = tiny.METHODS["xbm"], Recipe(epochs=1, batch_size=14, eval_batch_size=18)
    adapt_together(tiny.chip("ideal"), [tiny.stripes()] * 2, method=method, keys=keys, config=config)
    assert [main for name, main in compiled if name == SCORES] == [False]


@pytest.mark.slow
def test_learning_is_the_same_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = learned()
    monkeypatch.setattr(loop, "scoring_compiled", lambda *_: loop.nullcontext())
    tiny.assert_same_bits(learned().trained, ahead.trained)


class Broken:
    def compile(self) -> None:
        raise MemoryError("no room to compile")


def test_an_error_of_the_thread_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "scoring_program", lambda *_, **__: Broken())
    with pytest.raises(MemoryError, match="no room to compile"):
        learned()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_of_the_steps_waits_for_the_thread(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    class Slow:
        def compile(self) -> None:
            threading.Event().wait(0.2)
            ended.set()

    def stopped(*_: Any) -> None:
        raise error

    monkeypatch.setattr(scoring, "scoring_program", lambda *_, **__: Slow())
    monkeypatch.setattr(loop, "_steps", stopped)
    with pytest.raises(error):
        learned()
    assert ended.is_set()

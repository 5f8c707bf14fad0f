"""Signals that ask to stop: the handler, one that JAX drops, one that a save comes before."""

from __future__ import annotations

import gc
import signal
import sys
import threading

import pytest

from xbm_jax.errors import Interrupted, XbmError
from xbm_jax.training import interruptible
from xbm_jax.training.interrupt import heed, saving_first, stop_asked

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def python_handles_signals():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", BOTH)
def test_a_dropped_signal_is_raised_at_the_next_step(number):
    def press(_phase: str, _info: dict) -> None:
        signal.raise_signal(number)

    with interruptible():
        heed()
        gc.callbacks.append(press)
        try:
            gc.collect()  # raises and drops it, without a word
        finally:
            gc.callbacks.remove(press)
        with pytest.raises(Interrupted) as stopped:
            heed()
        assert stopped.value.number == number
        heed()  # once


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_raised_at_once(number):
    usual, unraisable = signal.getsignal(number), sys.unraisablehook
    with pytest.raises(Interrupted) as stopped, interruptible():
        signal.raise_signal(number)
    assert isinstance(stopped.value, KeyboardInterrupt) and not isinstance(stopped.value, XbmError | Exception)
    assert stopped.value.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert signal.getsignal(number) is usual and sys.unraisablehook is unraisable


def test_who_saves_is_waited_for_but_not_twice(tmp_path):
    reached = []

    def stopped(*numbers):
        with interruptible(), saving_first(tmp_path):
            assert not stop_asked()
            for number in numbers:
                signal.raise_signal(number)
                assert stop_asked()
                reached.append(number)

    with pytest.raises(Interrupted) as late:
        stopped(signal.SIGTERM)
    assert late.value.folder == tmp_path and reached == [signal.SIGTERM]
    with pytest.raises(Interrupted) as at_once:
        stopped(signal.SIGTERM, signal.SIGINT)
    assert at_once.value.folder is None and at_once.value.number == signal.SIGINT
    assert reached == [signal.SIGTERM, signal.SIGTERM]


def test_without_the_handler_nothing_is_heeded(tmp_path):
    with saving_first(tmp_path):
        heed(tmp_path)
    with pytest.raises(KeyboardInterrupt) as stopped, saving_first(tmp_path):
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(stopped.value, Interrupted)


def test_handlers_of_others_stay():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with interruptible():  # within one's own, too
            handler = signal.getsignal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is handler


def test_other_threads_leave_signals_alone():
    found = []

    def work() -> None:
        with interruptible():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]

"""The thread that writes: only the newest of what waits, and no error is lost."""

from __future__ import annotations

import threading
import time

import pytest

from xbm_jax.training.writer import Writer


def test_of_what_waits_only_the_newest_is_written():
    begun, go, written = threading.Event(), threading.Event(), []

    def write(value):
        begun.set()
        assert go.wait(10)
        written.append(value)

    with Writer(write) as writer:
        writer.put(1)
        assert begun.wait(10)
        for value in (2, 3, 4):
            writer.put(value)  # returns at once
        go.set()
        writer.flush()
        assert written == [1, 4]
        writer.put(5)
    assert written == [1, 4, 5]  # nothing is lost at the end


def failing(*values, flush=False, wait=False, error=None):
    """What is written before 2, which fails."""
    written = []

    def write(value):
        if value == 2:
            raise OSError("full")
        written.append(value)

    with Writer(write) as writer:
        for value in values:
            writer.put(value)
            if flush:
                writer.flush()
        while wait:
            writer.check()
            time.sleep(0.001)
        if error is not None:
            raise error
    return written


@pytest.mark.parametrize("options", [{}, {"flush": True}, {"wait": True}])
def test_an_error_is_raised_by_the_next_call_or_at_the_end(options):
    assert failing(1, 3, flush=True) == [1, 3]
    with pytest.raises(OSError, match="full"):
        failing(2, **options)


def test_after_an_error_nothing_is_taken():
    with pytest.raises(OSError, match="full"):
        failing(1, 2, 3, flush=True)


def test_the_owners_own_error_comes_first():
    with pytest.raises(KeyError):
        failing(2, error=KeyError())


def test_the_thread_ends_with_its_owner():
    before = threading.active_count()
    with Writer(print):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before

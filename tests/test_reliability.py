"""A few of the faults of ``make faults``, in every test run; more of them in the slow ones."""

import pytest
from reliability.run import ROWS, measured, page
from reliability.small import judged

from cost import slow_but
from xbm_jax.errors import BankError

FEW = {
    "flipped_bits": 12,
    "damaged_files": 8,
    "sigkill_replacing": 3,
    "sigkill_training": 2,
    "full_disk": 3,
    "two_writers": 1,
    "other_devices": 1,
    "threads": 20,
    "hostile_files": 12,
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", slow_but(["flipped_bits", "hostile_files"], list(ROWS)))
def test_a_fault_does_no_harm(name):
    found = measured(name, FEW[name])
    if "not_run" in found:
        pytest.skip(found["not_run"])
    assert found["met"], found


def test_a_trial_is_judged_by_its_worst_reading():
    wanted = {"a": "1", "b": "2", "log 0": "x"}
    assert judged(wanted, wanted) == "whole"
    assert judged({**wanted, "a": BankError("a", 1, "b")}, wanted) == "named"
    assert judged({**wanted, "a": BankError("a", 1, "b"), "b": ValueError()}, wanted) == "bare"
    assert judged({**wanted, "a": ValueError(), "b": "3"}, wanted) == "silent"
    assert judged({**wanted, "log 0": "y"}, wanted) == "silent"


def test_the_page_says_what_was_not_run():
    text = page({"full_disk": {"not_run": "no tmpfs"}}, {"cpus": 2, "os": "x", "versions": {"jax": "1"}})
    assert text.count("not run") == len(ROWS) and "no tmpfs" in text

"""Which cases of a test run every time: one or two of a kind; the rest are slow tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest


def slow_but(quick: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases, all marked slow but the quick ones; of a mapping its values, chosen and shown by name."""
    kept = list(quick)
    named = list(cases.items()) if isinstance(cases, Mapping) else [(case, case) for case in cases]
    unknown = [name for name in kept if name not in [name for name, _ in named]]
    assert not unknown, f"quick cases that are none: {unknown}"
    return [_case(name, value, quick=name in kept) for name, value in named]


def _case(name: Any, value: Any, *, quick: bool) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    shown = "-".join(map(str, name)) if isinstance(name, tuple) else str(name)
    return pytest.param(*values, id=shown, marks=[] if quick else [pytest.mark.slow])


SAMPLED = {
    "banks/test_bank.py::test_a_task_comes_back_bit_for_bit": 3,
    "banks/test_stored_examples.py::test_a_chip_of_before_predicts_as_it_did": 2,
    "banks/test_stored_examples.py::test_every_task_of_a_bank_of_before_predicts_as_it_did": 2,
    "crossbar/test_adc.py::test_max_range_never_clips": 2,
    "crossbar/test_curve.py::test_a_read_adds_up_every_cells_current": 4,
    "crossbar/test_encodings.py::test_every_encoding_gives_the_integer_product": 4,
    "crossbar/test_encodings.py::test_lossless_converters_fold_to_the_same_bits": 3,
    "crossbar/test_lines.py::test_a_chip_that_keeps_its_lines_reads_the_same": 3,
    "crossbar/test_lines.py::test_equal_gains_of_both_lines_are_the_columns": 3,
    "crossbar/test_lines.py::test_gain_gradients_are_those_of_what_was_read_noise_included": 3,
    "crossbar/test_lines.py::test_reads_and_gradients_are_those_of_every_lines_current": 3,
    "crossbar/test_loops.py::test_a_dense_kernel_is_a_convolution_of_one_pixel": 3,
    "crossbar/test_orders.py::test_a_read_is_that_of_the_moved_kernel": 3,
    "crossbar/test_program.py::test_ideal_cells_are_exact_integers": 2,
    "crossbar/test_published.py::test_pure_and_traceable": 3,
    "crossbar/test_read.py::test_jit_equals_eager": 3,
    "crossbar/test_wires.py::test_gradients": 2,
    "masks/test_method_oracle.py::test_24_steps_of_the_official_layers": 2,
    "masks/test_methods.py::test_gradients_exist_for_what_is_trained_alone": 3,
    "masks/test_rules.py::test_codes_give_the_bits_of_their_logits": 3,
    "models/test_backbones.py::test_parameters": 3,
    "models/test_calibrate.py::test_shapes_of_what_shares_a_range": 2,
    "models/test_name_tables.py::test_logits_are_the_librarys": 2,
    "tasks/test_lines.py::test_an_inspection_counts_lines_and_what_is_converted": 2,
    "tasks/test_population.py::test_one_call_is_a_loop": 2,
    "training/test_together.py::test_tasks_learned_together_are_tasks_learned_alone": 3,
}
"""Tests of many like cases: every n-th of them runs every time, the others are slow tests."""


def mark_sampled(items: Iterable[pytest.Item]) -> None:
    """Mark as slow all cases of sampled tests but every n-th."""
    seen = dict.fromkeys(SAMPLED, 0)
    for item in items:
        name = item.nodeid.partition("[")[0].removeprefix("tests/")
        if name in SAMPLED:
            if seen[name] % SAMPLED[name]:
                item.add_marker(pytest.mark.slow)
            seen[name] += 1

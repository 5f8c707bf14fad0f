"""The cost model beside printed numbers, and its page and tables beside the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from experiments import cost_checks

from xbm_jax.hardware import load_technology, technologies
from xbm_jax.hardware.components import COMPONENTS
from xbm_jax.hardware.constants.names import CONSTANTS, CONVERTERS
from xbm_jax.hardware.inference import AREAS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "cost.md").read_text(encoding="utf-8")


def test_isaac_powers_are_those_of_its_table() -> None:
    for part, (ours, paper) in cost_checks.isaac_milliwatts().items():
        assert ours == pytest.approx(paper, rel=0.01), part


def test_an_isaac_array_read_from_our_own_counts() -> None:
    """24.1 mW x 100 ns / 8 arrays = 301 pJ; the parts that do not depend on weights' and inputs' bits to 1 %."""
    parts = cost_checks.array_read_picojoules()
    assert sum(parts.values()) == pytest.approx(301, rel=0.05)
    printed = {"ADC": 16, "DAC": 4, "sample and hold": 0.01, "cells": 2.4, "shift and add": 0.2}
    for name, milliwatts in printed.items():
        assert parts[name] == pytest.approx(milliwatts * 100 / 8, rel=0.01), name


def test_neurram_by_cost_is_its_silicon_within_a_tenth() -> None:
    """From a programmed array's counts; of the constants alone `test_technology.py` has the same errors."""
    for bits in (1, 6):
        assert cost_checks.neurram_tops_per_watt(bits) == pytest.approx(cost_checks.TOPS_PER_WATT[bits], rel=0.1)


@pytest.mark.parametrize(
    "name", [*cost_checks.QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in cost_checks.LARGE)]
)
def test_committed_tables_are_what_the_code_gives(name: str) -> None:
    made = {**cost_checks.QUICK, **cost_checks.LARGE}[name]()
    assert (DOCS / "tables" / f"{name}.md").read_text(encoding="utf-8") == made
    assert f"(tables/{name}.md)" in PAGE


def test_one_command_writes_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("QUICK", "LARGE"):
        monkeypatch.setattr(cost_checks, kind, {name: name.upper for name in getattr(cost_checks, kind)})
    cost_checks.main(cost_checks.Config(out=tmp_path / "new", large=False))
    assert {path.stem for path in (tmp_path / "new").iterdir()} == set(cost_checks.QUICK)
    cost_checks.main(cost_checks.Config(out=tmp_path / "new"))
    assert (tmp_path / "new" / "cost_vgg8.md").read_text() == "COST_VGG8"


def test_the_page_names_every_component_constant_and_model() -> None:
    energy = PAGE[PAGE.index("## 3.") : PAGE.index("## 4.")]
    rows = re.findall(r"^\| ([^|]+) \|", energy, re.MULTILINE)
    assert rows[2:] == [*COMPONENTS, "head", "leakage"]
    named = set(re.findall(r"`([a-z0-9_]+)`", PAGE))
    assert named >= set().union(*(load_technology(name).constants for name in technologies()))
    assert named >= set(CONSTANTS) and named >= set(CONVERTERS)
    assert all(f"`{name}`" in PAGE for name in technologies())


def test_the_table_of_components_names_every_constant_that_prices_something() -> None:
    table = cost_checks.components_page()
    named = set(re.findall(r"`([a-z0-9_]+)`", table))
    assert {constant for constant, _ in AREAS.values()} <= named
    factors = {"columns_per_adc", "dac_bits", "word_line_joules_per_pulse", "write_pulses"}
    unused = {"add_joules", "sram_read_joules_per_bit"}
    assert set(CONSTANTS) - named == factors | unused

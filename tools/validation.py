"""The table of ``docs/validation.md``: every comparison with another program or a published number, and what was found.

Command:   python -m tools.validation [WORD ...]    (a word: what is compared, or with whom; without one all of it)
Hardware:  one CPU core, 4 GB of memory; the largest network whose logits are compared has 138 million parameters.
Time:      a quarter of an hour where nothing else runs.
Needs:     the test tools, and the reference data (CONTRIBUTING.md); what is not there is left as it was found last.
Writes:    docs/validation.json and the table of docs/validation.md.

The tests themselves are run, and what they compare is written down: there is no second comparison that could say
something else.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from xbm_jax.report import run_context

ROOT = Path(__file__).resolve().parents[1]
PAGE, NUMBERS = ROOT / "docs" / "validation.md", ROOT / "docs" / "validation.json"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->"


class Check(NamedTuple):
    """What is compared with whom, by which tests."""

    what: str
    whom: str
    tests: tuple[str, ...]


CHECKS = (
    Check(
        "integer products, with 8-bit converters, bit by bit: outputs within 1e-4 of the largest",
        "CrossSim 3.2",
        ("tests/crossbar/test_oracles.py::test_crosssim_products",),
    ),
    Check(
        "exact products, layer by layer and of a whole network, where converters are ideal or lossless",
        "NumPy integers",
        (
            "tests/crossbar/test_oracles.py::test_crosssim_products_are_the_exact_product_where_the_converter_is_ideal",
            "tests/models/test_integer_network.py::test_every_layer_sums_the_integers",
            "tests/models/test_integer_network.py::test_predictions_are_the_integer_networks[100]",
        ),
    ),
    Check(
        "wires: four arrays",
        "sparse nodal analysis by another program (agrees with badcrossbar)",
        ("tests/crossbar/test_wires.py::test_agrees_with_sparse_nodal_analysis_by_another_program",),
    ),
    Check(
        "wires: random arrays",
        "dense nodal analysis",
        ("tests/crossbar/test_wires.py::test_agrees_with_dense_nodal_analysis",),
    ),
    Check(
        "devices: programming error, drift, read noise",
        "published fits, in float64 outside the package",
        ("tests/crossbar/test_published.py",),
    ),
    Check(
        "24 training steps of Piggyback, ternary, KSM hard and soft",
        "the authors' layers, PyTorch in float64",
        ("tests/masks/test_method_oracle.py::test_24_steps_of_the_official_layers",),
    ),
    Check(
        "logits with the same random weights",
        "torchvision, timm, Transformers",
        ("tests/models/test_name_tables.py::test_logits_are_the_librarys",),
    ),
    Check(
        "MiniLM-L6: hidden states, features of 32 sentences",
        "Transformers",
        ("tests/models/test_bert.py::test_hidden_states_and_features_are_the_librarys",),
    ),
    Check(
        "ResNet-50's mask bits",
        "its architecture, counted",
        ("tests/crossbar/test_oracles.py::test_resnet50_mask_memory",),
    ),
    Check(
        "energy of a conversion",
        "NeuroSim's and the survey's printed values",
        (
            "tests/hardware/test_converters.py::test_neurosim_at_22_nm_to_the_printed_digits",
            "tests/hardware/test_converters.py::test_survey_energies",
        ),
    ),
    Check(
        "ISAAC's powers; NeuRRAM's silicon",
        "their papers",
        (
            "tests/hardware/test_cost_checks.py::test_isaac_powers_are_those_of_its_table",
            "tests/hardware/test_cost_checks.py::test_neurram_by_cost_is_its_silicon_within_a_tenth",
        ),
    ),
)


class Seen:
    """A plugin of pytest that notes what passes, and how far apart what was compared is."""

    def __init__(self) -> None:
        self.now, self.outcomes = "", {}
        self.worst: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.found: dict[str, list[str]] = defaultdict(list)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.now = nodeid

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
            self.found[report.nodeid] += [str(value) for name, value in report.user_properties if name == "found"]

    def note(self, got: Any, wanted: Any, rtol: float, atol: float) -> None:
        """The largest difference, as a share of the largest number and of what is allowed."""
        got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
        if wanted.size and np.abs(wanted).max() > 0:
            apart, allowed = np.abs(got - wanted), atol + rtol * np.abs(wanted)
            used = np.divide(apart, allowed, out=np.zeros_like(apart), where=np.broadcast_to(allowed > 0, apart.shape))
            self.worst[self.now].append((float(apart.max() / np.abs(wanted).max()), float(used.max())))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """``numpy.testing.assert_allclose`` as it is, with what it is given noted."""
        plain = np.testing.assert_allclose

        def noted(actual: Any, desired: Any, rtol: float = 1e-7, atol: float = 0, **options: Any) -> None:
            self.note(actual, desired, rtol, atol)
            plain(actual, desired, rtol=rtol, atol=atol, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(np.testing, "assert_allclose", noted)
            yield


def of(check: Check, seen: Seen) -> dict[str, Any]:
    """The record of one comparison: how many tests passed, and the largest deviation of all that they compared."""
    mine = [
        node for node in seen.outcomes if any(node.startswith((f"{t}[", f"{t}::")) or node == t for t in check.tests)
    ]
    outcomes = [seen.outcomes[node] for node in mine]
    pairs = [pair for node in mine for pair in seen.worst[node]]
    return {
        "passed": outcomes.count("passed"),
        "failed": outcomes.count("failed"),
        "skipped": outcomes.count("skipped"),
        "deviation": max((apart for apart, _ in pairs), default=None),
        "share_of_allowed": max((used for _, used in pairs), default=None),
        "found": [text for node in mine for text in seen.found[node]],
    }


def table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of the page."""
    lines = ["| what | compared with | tests passed | largest deviation | of what is allowed | test |"]
    lines.append("|---|---|---|---|---|---|")
    for check in (check for check in CHECKS if check.what in records):
        record = records[check.what]
        far = "; ".join(record["found"]) or (
            "as asserted" if record["deviation"] is None else _short(record["deviation"])
        )
        used = "" if record["share_of_allowed"] is None else _share(record["share_of_allowed"])
        passed = f"{record['passed']} of {record['passed'] + record['failed']}"
        files = sorted({test.split("::")[0] for test in check.tests})
        links = ", ".join(f"[{Path(file).stem.removeprefix('test_').replace('_', ' ')}](../{file})" for file in files)
        lines.append(f"| {check.what} | {check.whom} | {passed} | {far} | {used} | {links} |")
    return "\n".join(lines) + "\n"


def _short(deviation: float | None) -> str:
    return "as asserted" if deviation is None else f"{deviation:.1e}" if deviation else "0"


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "below 1%"


def page(text: str, records: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with the table anew."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + table(records) + END + rest.split(END)[1]


def main(words: list[str]) -> None:
    chosen = [check for check in CHECKS if not words or any(word in f"{check.what} {check.whom}" for word in words)]
    tests, seen = [test for check in chosen for test in check.tests], Seen()
    with seen.watching():
        options = ["-q", "-p", "no:xdist", "-m", "slow or not slow", "--timeout=3600"]
        code = pytest.main([*options, *tests], plugins=[seen])
    old = json.loads(NUMBERS.read_text(encoding="utf-8"))["checks"] if NUMBERS.exists() else {}
    new = {check.what: of(check, seen) for check in chosen}
    found = old | {what: one for what, one in new.items() if what not in old or not one["skipped"]}
    records = {check.what: found[check.what] for check in CHECKS if check.what in found}
    context = run_context({}, seed=0)
    NUMBERS.write_text(json.dumps({"context": context, "checks": records}, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), records), encoding="utf-8")
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The programs of the reference folder that show what was wrong once: each prints what is right now.

They are small inputs as users of such programs reported them. Each runs in a process of its own, as a user would run
it; what it prints is compared with what its list calls right. They are slow together: `make test-slow`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow

Check = Callable[[str], Iterator[str]]


class Case(NamedTuple):
    """A program, its arguments, and what its output has to show."""

    file: str
    checks: tuple[Check, ...]
    data: str | None = None
    arguments: tuple[str, ...] = ()


def says(pattern: str) -> Check:
    """Some line matches."""

    def check(output: str) -> Iterator[str]:
        if not re.search(pattern, output, re.MULTILINE):
            yield f"no line with {pattern!r}"

    return check


def never(pattern: str) -> Check:
    """No line matches."""

    def check(output: str) -> Iterator[str]:
        yield from (f"a line with {pattern!r}: {found[0]}" for found in re.finditer(f"^.*{pattern}.*$", output, re.M))

    return check


def number(pattern: str, low: float, high: float) -> Check:
    """Every number that the pattern finds lies within; it finds one."""

    def check(output: str) -> Iterator[str]:
        found = [float(text) for text in re.findall(pattern, output, re.MULTILINE)]
        if not found or not all(low <= value <= high for value in found):
            yield f"{pattern!r} gives {found}, not {low:g} to {high:g}"

    return check


def close(pattern: str, tolerance: float) -> Check:
    """Every pair of numbers that the pattern finds is equal within a share; it finds one."""

    def check(output: str) -> Iterator[str]:
        pairs = [(float(a), float(b)) for a, b in re.findall(pattern, output, re.MULTILINE)]
        if not pairs or any(abs(a - b) > tolerance * abs(b) for a, b in pairs):
            yield f"{pattern!r} gives {pairs}, further apart than {tolerance:g}"

    return check


def right_or_refused() -> Check:
    """Every line with a relative error has one within quantisation; the others are refused by the package."""

    def check(output: str) -> Iterator[str]:
        found = [float(text) for text in re.findall(r"relative error ([\d.e+-]+|nan)", output)]
        yield from (f"relative error {value:g}" for value in found if not value <= 0.05)
        yield from (
            f"neither right nor refused: {line}" for line in output.splitlines() if "| package error: False" in line
        )

    return check


NAMED = never("package error: False")
"""Whatever is refused is refused by one of the package's errors."""

CASES = (
    Case(
        "c01_thinned_channels.py",
        (
            close(r"input scale ([\d.]+) \(all pixels: ([\d.]+)\)", 0.01),
            number(r"same class as the float network ([\d.]+)", 0.9, 1),
        ),
    ),
    Case("c02_last_batch.py", (number(r"accuracy ([\d.]+)", 0.88, 1),), "cifar10"),
    Case(
        "c03_float_images.py",
        (
            number(r"^predict uint8: accuracy ([\d.]+)", 0.85, 1),
            *(
                says(rf"^predict {name} DataError")
                for name in (r"float 0\.\.255", r"float 0\.\.1", "uint16", "int8", "bool", r"-1\.\.1")
            ),
            says(r"^population DataError"),
        ),
        "cifar10",
    ),
    Case(
        "c05_shared_layer.py",
        (
            NAMED,
            says(r"^called twice \|"),
            says(r"^two names \|"),
            says(r"^one kernel \|"),
            says(r"^norm, two names \|"),
            right_or_refused(),
        ),
    ),
    Case(
        "c06_batchnorm_axis.py",
        (number(r"relative error of logits ([\d.e-]+)", 0, 0.02), number(r"same class ([\d.]+)", 1, 1)),
    ),
    Case("c07_module_state.py", (NAMED, right_or_refused())),
    Case("c09_exif.py", (says(r"sky above: 11 of 11"),)),
    Case("c10_large_image.py", (NAMED, says(r"^raise .*names the file: True"), says(r"^skip \(8, 32, 32, 3\)"))),
    Case(
        "c11_rbg_keys.py",
        (
            NAMED,
            *(
                says(rf"^{name} {step} \| (ok|True|1\.0)")
                for name in ("threefry", "raw", "rbg")
                for step in ("program", "at", "loaded where rbg is the default")
            ),
        ),
    ),
    Case(
        "c12_time.py",
        (
            number(r"^\w+ (?:0\.0|60\.0) \| NaN in (\d+)", 0, 0),
            *(says(rf"^\w+ {t} \| SpecError t_seconds") for t in (r"-60\.0", "nan", "inf")),
        ),
    ),
    Case("c13_all_digital.py", (NAMED, says("^head_only serve ok"), says("^xbm serve ok"))),
    Case(
        "c14_other_chip.py",
        (says("^own chip, own bank: 0"), *(says(rf"^{name}.* \| BankError") for name in ("serve", "put", "predict"))),
    ),
    Case(
        "c17_labels_from_one.py",
        (
            says("labels from 0 \\| accepted"),
            says("labels from 1 \\| DataError"),
            says("labels -1 and 99 \\| DataError"),
            says("without class_names \\| DataError"),
            says("with class_names \\| DataError"),
        ),
        "cifar10",
    ),
    Case(
        "c18_names.py",
        (
            NAMED,
            says(r"^bytes \| \('cat', 'dog'\)"),
            says(r"^@eaDir thumbnails \| \('cat', 'dog'\)"),
            says("a suffix not in the list \\| 10"),
        ),
    ),
    Case(
        "c19_weight_files.py",
        (
            NAMED,
            says(r"^negative variances \| WeightsError"),
            says(r"^complex \| WeightsError"),
            number(
                r"^(?:index of shards|zip64|upper-case suffix|prefix \S+) \| largest difference of logits ([\d.e-]+)",
                0,
                0,
            ),
        ),
    ),
    Case(
        "c20_sparse.py",
        (number(r"input scale ([\d.e-]+)", 0.003, 0.005), number(r"relative error ([\d.e-]+)", 0, 0.05)),
    ),
    Case("c21_custom_device.py", (NAMED, says(r"nothing that a file can hold"), says(r"^save_chip \| BankError"))),
    Case("c22_diverging.py", (says(r"TrainingError: loss at step 2 of"),)),
    *(
        Case(
            "c23_jax_settings.py",
            (NAMED, says(r"all ran; stored predictions equal bit for bit: True \| served as predicted 1\.0")),
            arguments=given,
        )
        for given in (
            ("none", "-"),
            ("jax_enable_x64", "True"),
            ("jax_numpy_rank_promotion", "raise"),
            ("jax_numpy_dtype_promotion", "strict"),
        )
    ),
    Case("c25_two_writers.py", (number(r"(\d+) of 12 failed", 0, 0),)),
    Case("c25b_same_name.py", (number(r"(\d+) of 8 failed", 0, 0), number(r"^rc (-?\d+)", 0, 0))),
    Case("c27_many_classes.py", (number(r"20000 classes: \w+ ([\d.]+) s", 0, 2),)),
    Case("c28_pickle.py", (says(r"network equal to its own: True \| same tree: True"),)),
    Case(
        "c29_transformations.py",
        (
            NAMED,
            says(r"^predict, batch_size=0 \| DataError"),
            says(r"^predict, batch_size=-1 \| DataError"),
            says(r"^calibrate, batch_size=0 \| \w+Error"),
        ),
    ),
    Case("c30_calibrated_elsewhere.py", (says("the chip is calibrated otherwise than for this bank"),)),
    Case(
        "c33_torch_checkpoints.py",
        (
            says(r"^net, acc \| loaded"),
            says(r"^model\.state_dict \| loaded"),
            says(r"^ema only \| loaded"),
            says(r"^ema beside \| loaded"),
        ),
    ),
    Case(
        "c34_left_digital.py",
        (number(r"^relative error ([\d.e-]+)", 0, 0.05), says(r"9,344 of 9,560 weights stayed digital")),
    ),
    Case("c37_tap_order.py", (number(r"relative error ([\d.e-]+)", 0, 0.01), never("Error "))),
    Case(
        "c39_disk_full.py",
        (
            NAMED,
            says(r"^put \| OutputError"),
            says(r"older task is still there: \{'who': 1\}"),
            says(r"replaced afterwards: \{'who': 3\}"),
        ),
    ),
    Case("c41_decorated_modules.py", (NAMED, right_or_refused())),
    Case("c43_zero_one_uint8.py", (says(r"^0 and 255 .* warnings 0"), says(r"^0 and 1 .* warnings [1-9]"))),
    Case("c44_small_things.py", (NAMED,)),
    Case(
        "c16_bank_list.sh",
        (says("names found by grep: 1"), says(r"xbm\[lr=2e-4\]"), says(r"norm_only \[red\]warm\[/red\]")),
    ),
    Case(
        "c26_environment.sh",
        (
            never("Unicode"),
            never("Traceback"),
            number(r"^== (?!an error|seed)[^>]*-> exit (\d+)", 0, 0),
            number(r"^== (?:an error|seed)[^>]*-> exit (\d+)", 2, 2),
        ),
    ),
    Case("c31_two_adapts.sh", (close(r"accuracy stored ([\d.]+) served from the bank ([\d.]+)", 0),)),
    Case("c35_shards.sh", (says(r"all ran; stored predictions equal bit for bit: True"),)),
    Case(
        "c40_one_damaged.sh",
        (
            never("Traceback"),
            says(r"^x ok"),
            says(r"^z ok"),
            says(r"^y BankError"),
            says(r"^served"),
            number(r"name the package's version: (\d+)", 1, 100),
        ),
    ),
    Case("c42_tilde.sh", (says(r"^runs \| here: *$"), says(r"^exit 0"))),
)


@pytest.mark.parametrize("case", CASES, ids=[" ".join((case.file, *case.arguments)) for case in CASES])
@pytest.mark.timeout(900)
def test_program_prints_what_is_right(shared, case: Case) -> None:
    path = shared / "faults" / case.file
    if not path.is_file():
        pytest.skip(f"not here: {path}")
    given = (str(shared / "data" / f"{case.data}.npz"),) if case.data else case.arguments
    bins = Path(sys.executable).parent
    command = ["bash", str(path), str(bins)] if path.suffix == ".sh" else [sys.executable, str(path), *given]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=850, env=dict(os.environ))
    output = done.stdout + done.stderr
    assert [problem for check in case.checks for problem in check(output)] == [], output[-4000:]

"""``--spec-file``: what a TOML file changes, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbm_jax.cli.commands import _specs
from xbm_jax.cli.options import Adapt
from xbm_jax.cli.spec_file import read_spec_file
from xbm_jax.crossbar import Adc, Cell, CrossbarSpec, Gaussian, ReramWan
from xbm_jax.errors import SpecError
from xbm_jax.models import Where

TEXT = """
[spec]
rows = 128
cell = { bits = 4, on_off = 50 }
device = { class = "ReramWan" }

[[layers]]
path = "stem"
digital = true

[[layers]]
kind = "Conv"
shape = [1, 1, -1, -1]
[layers.spec]
rows = 32
adc = { bits = 6 }
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "spec.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_changes_the_chip_and_some_of_its_layers(tmp_path: Path) -> None:
    base = CrossbarSpec(rows=64, adc=Adc(bits=8), cell=Cell(bits=7))
    spec, rules = read_spec_file(written(tmp_path, TEXT), base)
    assert spec == base.replace(rows=128, cell=Cell(bits=4, on_off=50), device=ReramWan())
    wanted = {Where("stem"): None, Where(kind="Conv", shape=(1, 1, None, None)): spec.replace(rows=32, adc=Adc(bits=6))}
    assert dict(rules) == wanted


def test_options_change_what_the_file_says(tmp_path: Path) -> None:
    options = Adapt("t", tmp_path, spec_file=written(tmp_path, TEXT), adc_bits=5, programming_sigma=0.1)
    spec, rules = _specs(options)
    own = [own for own in rules.values() if own is not None]
    assert [s.adc.bits for s in (spec, *own)] == [5, 5] and [s.rows for s in (spec, *own)] == [128, 32]
    assert {s.device for s in (spec, *own)} == {Gaussian(sigma=0.1)}


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert read_spec_file(written(tmp_path, ""), CrossbarSpec()) == (CrossbarSpec(), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec = 3", "spec = 3: a table"),
        ("[spec]\nrowz = 3", "spec = 'rowz': one of rows, "),
        ("[spec]\nrows = 'many'", "CrossbarSpec.rows = 'many'"),
        ("[spec.cell]\nbits = 40", "Cell.bits = 40"),
        ("[spec.device]\nclass = 'Nothing'", "spec.device = "),
        ("[chip]", "--spec-file = 'chip': one of spec, layers"),
        ("layers = 3", r"layers = 3: tables, \[\[layers\]\]"),
        ("[[layers]]\npath = 'a'", "either digital = true or a table spec"),
        ("[[layers]]\npath = 'a'\ndigital = true\nspec = {}", "either digital = true or a table spec"),
        ("[[layers]]\npath = 3\ndigital = true", r"layers\[0\].path = 3: text"),
        ("[[layers]]\nshape = ['*']\ndigital = true", "a list of sizes, -1 for any"),
        ("[[layers]]\nwhere = 'a'\ndigital = true", r"layers\[0\] = 'where': one of path, kind, shape, digital, spec"),
        ("[[layers]]\ndigital = true\n[[layers]]\ndigital = true", "other layers than an earlier table has"),
        ("[[layers]]\nspec = { rows = 0 }", "CrossbarSpec.rows = 0"),
        ("no toml", "TOML in UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_spec_file(written(tmp_path, text), CrossbarSpec())


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--spec-file = .*none.toml'?: a file that can be read"):
        read_spec_file(tmp_path / "none.toml", CrossbarSpec())

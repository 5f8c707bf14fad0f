"""What docs/text.md says: its programs run, and its counts are the network's."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import jax
import pytest

import xbm_jax as xbm
from models.tiny import structure
from models.tiny_text import VOCABULARY, build, text_backbone
from xbm_jax.data import Tokenizer

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "text.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_from_a_sentence_to_an_answer_are_fifteen_lines() -> None:
    assert len([line for line in PROGRAMS[0].splitlines() if line.strip()]) <= 15


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*zero but for outliers")
def test_the_program_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """With a small network, and questions that are about a person where they begin with «Who»."""
    asked = [f"{('Who', 'Where')[i % 2]} was {('Galileo', 'Rome', 'it')[i % 3]} ?" for i in range(240)]
    lines = [f"{('person', 'place')[i % 2]}\t{text}" for i, text in enumerate(asked)]
    for split, part in (("train", lines[:200]), ("test", lines[200:])):
        (tmp_path / f"trec6.{split}.tsv").write_text("\n".join(part))
    made = Tokenizer(lambda texts: [[1, *(len(w) + ord(w[0]) % (VOCABULARY - 9) for w in t.split()), 2] for t in texts])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(xbm, "load_backbone", lambda name, weights: text_backbone())
    monkeypatch.setattr(xbm.data, "load_tokenizer", lambda source, max_length: made.at_most(max_length - 24))
    exec(PROGRAMS[0], {})
    assert capsys.readouterr().out.strip() == "person"


def test_a_network_of_ones_own_is_described() -> None:
    known: dict[str, Any] = {"xbm": xbm, "jax": jax, "build": build}
    exec(PROGRAMS[1], known)
    assert known["network"].inputs.mask == "mask" and len(known["network"].kernels) == 7


def test_the_counts_are_the_networks() -> None:
    network = structure("minilm-l6", 384)
    sizes = {path: math.prod(shape) for path, shape in network.shapes.items() if not path.startswith("head/")}
    on_arrays = sum(size for path, size in sizes.items() if path.endswith("/kernel"))
    small = sum(size for path, size in sizes.items() if path.endswith(("/bias", "/scale")))
    others = [sizes["words/embedding"], sizes["places/embedding"] + sizes["segments/embedding"], small]
    for count in (on_arrays, *others):
        assert f"| {count:,} |" in PAGE
    backbones = (Path(__file__).resolve().parents[1] / "docs" / "backbones.md").read_text(encoding="utf-8")
    assert f"{sum(sizes.values()):,} without a head" in backbones and len(network.norms) == 13

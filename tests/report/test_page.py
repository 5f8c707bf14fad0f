from __future__ import annotations

import json
import re

import pytest

from report.examples import ROWS
from xbm_jax.errors import OutputError
from xbm_jax.report import markdown_table, run_context, write_report

CONTEXT = {"command": "xbm quickstart", "seed": 7, "device": {"kind": "cpu", "count": 8}, "config": {"epochs": 3}}


def test_page_holds_table_figures_sections_and_context(tmp_path):
    path = tmp_path / "REPORT.md"
    sections = [("Serving", "The same predictions.\n"), ("Next", "- one\n- two")]
    write_report(path, ROWS, CONTEXT, sections, [tmp_path / "accuracy_bits.png"])
    text = path.read_text(encoding="utf-8")
    assert markdown_table(ROWS) in text
    assert "\n\n![accuracy bits](accuracy_bits.png)\n\n" in text
    assert "\n## Serving\n\nThe same predictions.\n\n## Next\n\n- one\n- two\n\n" in text
    assert "- command: `xbm quickstart`\n- seed: `7`\n- device: kind `cpu`, count `8`\n" in text
    assert json.loads(re.findall(r"```json\n(.*?)\n```", text, re.DOTALL)[0]) == {"epochs": 3}
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        *("# xbm_jax: results", "## Serving", "## Next", "## Made with")
    ]


def test_figures_are_found_from_the_page(tmp_path):
    path = tmp_path / "out" / "REPORT.md"
    write_report(path, ROWS, CONTEXT, [], [tmp_path / "my figures" / "a.png", tmp_path / "out" / "b.png"])
    assert re.findall(r"!\[.*?]\((.*?)\)", path.read_text()) == ["../my%20figures/a.png", "b.png"]


def test_backticks_and_brackets_break_no_code_and_no_picture(tmp_path):
    context = {"command": "xbm --out a``b\nc"}
    write_report(tmp_path / "REPORT.md", ROWS, context, [], [tmp_path / "a][`.png"])
    text = (tmp_path / "REPORT.md").read_text()
    assert "- command: ``` xbm --out a``b\\nc ```\n" in text
    assert r"![a\]\[\`](a%5D%5B%60.png)" in text


def test_page_takes_a_real_context(tmp_path):
    context = run_context({"method": "xbm"}, 3)
    write_report(tmp_path / "REPORT.md", ROWS, context, [], [])
    text = (tmp_path / "REPORT.md").read_text()
    assert all(f"{name} `{version}`" in text for name, version in context["versions"].items())


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"REPORT\.md"):
        write_report(tmp_path / "file" / "REPORT.md", ROWS, CONTEXT, [], [])

"""Pages of documentation: what they link to and name exists, and figures are of the numbers beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from experiments import chip_sweeps

import xbm_jax as xbm

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "notebooks").glob("*.py"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#]+)(?:#[^)]*)?\)")
FILE = re.compile(r"`((?:src|tests|docs|experiments|notebooks|tools)/[\w./-]+\.\w+)`")


def missing(text: str, folder: Path) -> list[str]:
    """Files that a page of ``folder`` links to, or names from the root, and that are not there."""
    links = [target for target in LINK.findall(text) if "://" not in target]
    lost = [target for target in links if not (folder / target).is_file()]
    return lost + [name for name in FILE.findall(text) if not (ROOT / name).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    assert missing(page.read_text(encoding="utf-8"), page.parent) == []


@pytest.mark.parametrize("text", ["![a](figures/none.png)", "[b](none.md#part)", "see `docs/none.md`"])
def test_what_is_missing_is_found(text: str) -> None:
    assert len(missing(text, ROOT / "docs")) == 1
    assert missing("[web](https://example.org/none.md), [section](#none)", ROOT / "docs") == []


def test_public_names_on_pages_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"\bxbm\.([a-zA-Z_][\w.]*\w)", page.read_text(encoding="utf-8")):
            thing = xbm
            for name in path.split("."):
                thing = getattr(thing, name)


def test_figures_and_tables_are_of_the_committed_numbers() -> None:
    """Tables are what the numbers give, word for word; every sweep has a figure that is small and shown on the page."""
    content = json.loads((ROOT / "docs" / "chip_sweeps.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "crossbar.md").read_text(encoding="utf-8")
    sweeps = {record["sweep"] for record in content["points"]}
    assert sweeps == set(chip_sweeps.AXES)
    for sweep in sweeps:
        records = [record for record in content["points"] if record["sweep"] == sweep]
        table = (ROOT / "docs" / "tables" / f"{sweep}.md").read_text(encoding="utf-8")
        assert table == chip_sweeps.table(sweep, records)
        figure = ROOT / "docs" / "figures" / f"{sweep}.png"
        assert figure.stat().st_size < 60_000
        assert f"(figures/{sweep}.png)" in page and f"(tables/{sweep}.md)" in page

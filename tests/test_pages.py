"""The site of pages: each is in a list, sessions run, and a number that is a link is in what it links to."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tools import page_examples, validation

import xbm_jax as xbm

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OUTSIDE = ("notebooks/*.ipynb", "experiments/results/**/*.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = sorted({*DOCS.rglob("*.md"), *(page for pattern in OUTSIDE for page in ROOT.glob(pattern))})
TREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
NUMBER = re.compile(r"(?<![\w.,-])-?\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|[.,]\d)")
ANSWERS = [*sorted((DOCS / "questions").glob("*.md")), DOCS / "start" / "choosing.md"]
KINDS = (".md", ".ipynb")
UNITS = re.compile(r"\d\s*(?:%|points|[unpfm]?J\b|[unpfm]?s\b|GiB|seconds|minutes|times)")


def listed(page: Path) -> set[Path]:
    """The pages that a page's lists have, by name or by pattern."""
    found: set[Path] = set()
    for tree in TREE.findall(page.read_text(encoding="utf-8")):
        names = [line.strip() for line in tree.splitlines() if line.strip() and not line.startswith(":")]
        for name in names:
            folder, _, pattern = name.rpartition("/")
            base = (page.parent / folder).resolve()
            if "*" in pattern:
                some = base.rglob("*") if pattern == "**" else base.glob(pattern)
                found |= {path for path in some if path.suffix in KINDS}
            else:
                found |= {path for kind in KINDS if (path := base / f"{pattern}{kind}").is_file()}
    return found - {page}


def test_every_page_is_in_a_list() -> None:
    seen, ahead = set(), {DOCS / "index.md"}
    while ahead:
        page = ahead.pop()
        seen.add(page)
        if page.suffix == ".md":
            ahead |= listed(page) - seen
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in seen] == []


@pytest.mark.parametrize("page", page_examples.pages(), ids=lambda page: page.stem)
def test_a_session_on_a_page_gives_what_it_shows(page: Path) -> None:
    result = page_examples.run(page)
    assert result.attempted > 1 and result.failed == 0


def test_a_session_that_lies_is_found(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```pycon\n>>> 1 + 1\n3\n\n```\n")
    assert page_examples.run(page).failed == 1
    assert "line 4" in capsys.readouterr().out


def lost_numbers(page: Path, text: str) -> list[str]:
    """Numbers that are links to a committed table or record which does not have them."""
    lost = []
    for words, target in LINK.findall(text):
        source = page.parent / target.split("#")[0]
        if "#" not in target and source.suffix in (".md", ".json") and re.match(r"[-+±\d.,\s%a-zA-Zµ]*$", words):
            have = set(NUMBER.findall(source.read_text(encoding="utf-8").replace("+", " ")))
            lost += [f"{n} in {target}" for n in NUMBER.findall(words.replace("+", " ")) if n not in have]
    return lost


@pytest.mark.parametrize("page", [*ANSWERS, ROOT / "README.md", *DOCS.glob("start/*.md")], ids=lambda page: page.stem)
def test_a_number_that_is_a_link_is_in_its_table(page: Path) -> None:
    assert lost_numbers(page, page.read_text(encoding="utf-8")) == []


def test_a_number_that_a_table_has_not_is_found() -> None:
    page = DOCS / "questions" / "levels.md"
    assert lost_numbers(page, "[91.1](../tables/cell_bits.md), [50.5 ± 7.7](../tables/cell_bits.md)") == [
        "50.5 in ../tables/cell_bits.md",
        "7.7 in ../tables/cell_bits.md",
    ]


@pytest.mark.parametrize("page", ANSWERS, ids=lambda page: page.stem)
def test_no_measured_number_stands_without_its_table(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for marked in (r"```.*?```", r"`[^`\n]*`", LINK.pattern):
        text = re.sub(marked, "", text, flags=re.DOTALL)
    bare = [line.strip() for line in text.splitlines() if UNITS.search(line)]
    assert bare == []


def test_the_table_of_validation_is_of_the_committed_numbers() -> None:
    """``python -m tools.validation`` writes both; no comparison failed, and every test that it names is there."""
    records = json.loads(validation.NUMBERS.read_text(encoding="utf-8"))["checks"]
    text = validation.PAGE.read_text(encoding="utf-8")
    assert validation.page(text, records) == text
    assert list(records) == [check.what for check in validation.CHECKS]
    assert not any(record["failed"] for record in records.values())
    for test in (test for check in validation.CHECKS for test in check.tests):
        file, _, name = test.partition("::")
        assert f"def {name.split('[')[0]}" in (ROOT / file).read_text(encoding="utf-8")


def test_a_comparison_is_noted_with_what_it_used_of_its_tolerance() -> None:
    seen = validation.Seen()
    seen.pytest_runtest_logstart("a.py::test[one]")
    with seen.watching():
        np.testing.assert_allclose([1.0, 4.0], [1.0, 3.0], atol=2.0, rtol=0)
    assert seen.worst["a.py::test[one]"] == [(pytest.approx(1 / 3), 0.5)]
    assert np.testing.assert_allclose.__name__ == "assert_allclose"


def test_every_part_of_the_public_face_has_its_page_of_reference() -> None:
    parts = [name for name in xbm.__all__ if inspect.ismodule(getattr(xbm, name))]
    for part in parts:
        text = (DOCS / "api" / f"{part}.md").read_text(encoding="utf-8")
        assert f"```{{public}} {getattr(xbm, part).__name__}\n" in text
    assert {page.stem for page in (DOCS / "api").glob("*.md")} == {"index", *parts}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_site_is_built_without_a_warning_and_asks_nothing_of_a_network(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="pip install '.[docs]'")
    pytest.importorskip("myst_nb", reason="pip install '.[docs]'")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-c",
        "docs",
        "-b",
        "html",
        "-W",
        "--keep-going",
        "-q",
        ".",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    elsewhere = re.compile(r"<(?:script|link|img)\b[^>]*(?:src|href)=\"(?:https?:)?//")
    assert [page.name for page in pages if elsewhere.search(page.read_text(encoding="utf-8"))] == []
    assert "xbm_jax.crossbar.CrossbarSpec" in (tmp_path / "docs/api/crossbar.html").read_text(encoding="utf-8")

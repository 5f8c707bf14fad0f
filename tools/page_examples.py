"""Runs what pages show: every block of a page that reads like a session, in order, and compares what comes of it.

Command:   python -m tools.page_examples [PAGE ...]    (all of docs/ without names; `make docs` does it too)

A block begins with three backticks and `pycon`. The blocks of a page share their names, as one session.
"""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?<=^```pycon\n).*?(?=^```)", re.DOTALL | re.MULTILINE)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def session(text: str) -> str:
    """The blocks of a page on the lines where they stand, and nothing else."""
    out, end = [], 0
    for block in BLOCK.finditer(text):
        out += [re.sub(r"[^\n]", "", text[end : block.start()]), block.group()]
        end = block.end()
    return "".join(out)


def pages() -> list[Path]:
    """Every page that shows a session."""
    return [page for page in sorted((ROOT / "docs").rglob("*.md")) if "```pycon" in page.read_text(encoding="utf-8")]


def run(page: Path) -> doctest.TestResults:
    """What failed of a page's examples, and of how many; what differs is printed."""
    text = session(page.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    runner.run(test)
    return runner.summarize(verbose=False)


def main(names: list[str]) -> None:
    results = {page: run(page) for page in [Path(name).resolve() for name in names] or pages()}
    for page, result in results.items():
        print(f"{result.attempted - result.failed} of {result.attempted} examples: {page.relative_to(ROOT)}")
    raise SystemExit(any(result.failed for result in results.values()))


if __name__ == "__main__":
    main(sys.argv[1:])

"""From a place on disk to what a page shows: a results file, a quickstart's folder, a bank, or a saved run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from xbm_jax.banks import MaskBank
from xbm_jax.data import Dataset
from xbm_jax.errors import DataError
from xbm_jax.paths import as_path
from xbm_jax.report.web.found import Found
from xbm_jax.report.web.of_bank import of_bank, safely, seen_by
from xbm_jax.report.web.of_run import curves_of_log, of_run
from xbm_jax.report.web.page import page_of
from xbm_jax.storage.files import replace_file
from xbm_jax.tasks import Inspection
from xbm_jax.training.log import LOG, read_lines

__all__ = ["PAGE", "Seen", "found_in", "write_page"]

PAGE = "report.html"
"""What a page is called in the folder that it is of."""

_ALLOWED = (
    "a results file (.json with rows), or a folder with results.json (a quickstart's), bank.json (a bank) or "
    f"{LOG} (a saved run)"
)
_LARGEST_FILE = 200_000_000


def write_page(path: str | Path, found: Found) -> int:
    """Write the page, and say how many bytes it has.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    content = page_of(found).encode()
    replace_file(path, content)
    return len(content)


class Seen:
    """What a page may look at beside the files: a chip that lies elsewhere, and images for it.

    Args:
        chip: folder of the chip; by default it lies beside the bank.
        data: whose test images go through the chip, and are answered by the tasks that were learned on such data.
        count: how many of them, at most.
        key: draws read noise.
    """

    def __init__(
        self, chip: Path | None = None, data: Any = None, count: int = 128, key: jax.Array | None = None
    ) -> None:
        self.chip, self.data, self.count = chip, data, count
        self.key = jax.random.key(0) if key is None else key

    def of(self, bank: MaskBank | None) -> Found:
        """What the chip does to the images, if there are any.

        Raises:
            DataError: images, and no chip that reads them.
        """
        if self.data is None:
            return Found("")
        if bank is None:
            raise DataError("--data", "images", "images for a bank whose chip is there: --chip says where")
        data: Dataset = self.data(bank.chip)
        return seen_by(bank, data, self.count, self.key)


def found_in(place: str | Path, seen: Seen | None = None) -> Found:
    """Everything that is known of a place on disk; ``seen``: what is looked at beside it.

    Raises:
        DataError: a place that is none of those a page is made of. BankError: a bank or a run that is damaged.
    """
    seen, path = seen or Seen(), as_path(place)
    if path.is_dir():
        return _folder(path, seen)
    if path.suffix == ".json" and path.is_file():
        return _results(path)
    if path.suffix == ".safetensors" and path.is_file():
        found, bank = of_bank(path, seen.chip)
        return found.with_(seen.of(bank))
    raise DataError("report", str(place), _ALLOWED)


def _folder(path: Path, seen: Seen) -> Found:
    bank = next((at for at in (path, path / "bank") if (at / "bank.json").is_file()), None)
    found = Found(str(path))
    known = False
    if (path / "results.json").is_file():
        found, known = _results(path / "results.json").with_(found), True
    elif bank is None and (path / LOG).is_file():
        found, known = of_run(path), True
    if bank is not None:
        chip = seen.chip or next((at for at in (bank / "chip", path / "chip") if at.is_dir()), None)
        of, opened = of_bank(bank, chip)
        found, known = (found.with_(of) if found.rows else of), True
        found = found.with_(_logs(bank)).with_(seen.of(opened))
    if (path / "inspection.json").is_file() and found.health is None:
        found, known = found.with_(_results(path / "inspection.json")), True
    if not known:
        raise DataError("report", str(path), _ALLOWED)
    return found


def _logs(bank: Path) -> Found:
    """The logs that ``xbm adapt --log jsonl`` keeps beside a bank."""
    notes: list[str] = []
    curves = []
    for path in sorted((bank / "logs").glob("*.jsonl")):
        curves += safely(notes, path.name, lambda path=path: curves_of_log(path.stem, read_lines(path))) or []
    return Found("", curves=curves, notes=notes)


def _results(path: Path) -> Found:
    """A results file: of an experiment, the quickstart, or an inspection."""
    if path.stat().st_size > _LARGEST_FILE:
        raise DataError("report", str(path), f"a file of at most {_LARGEST_FILE:,} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError("report", str(path), f"JSON ({error})") from error
    title = str(path)
    if isinstance(content, Mapping) and "layers" in content:
        return Found(title, health=Inspection.from_json(content))
    tables = [content, *content.values()] if isinstance(content, Mapping) else [content]
    rows = next((t for t in tables if isinstance(t, list) and t and all(isinstance(r, Mapping) for r in t)), None)
    if rows is None:
        raise DataError("report", str(path), "JSON with a list of results, or what xbm inspect --out wrote")
    context = content.get("context", {}) if isinstance(content, Mapping) else {}
    return Found(title, rows, context=context if isinstance(context, Mapping) else {"context": context})

"""``xbm report``: a page of a results file, a bank or a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from xbm_jax.cli.console import Output, say, writable
from xbm_jax.cli.options import Report
from xbm_jax.cli.settle import read_key
from xbm_jax.data import Dataset, load
from xbm_jax.errors import DataError
from xbm_jax.models import Chip
from xbm_jax.report.web.gather import PAGE, Seen, found_in, write_page
from xbm_jax.training import for_chip

__all__ = ["report_command"]


def report_command(options: Report) -> None:
    """Write the page, and say where and what it could not show."""
    if options.images < 1:
        raise DataError("--images", options.images, "at least 1")
    out = options.out or _beside(options.place)
    writable("--out", out.parent, out.name)
    data = None if options.data is None else partial(_loaded, options)
    key = read_key(options.seed)
    found = found_in(options.place, Seen(options.chip, data, options.images, key))
    size, console = write_page(out, found), Output()
    for note in found.notes:
        say(console, note)
    say(console, f"Written to {out}: {size:,} bytes; open it in a browser.")


def _beside(place: Path) -> Path:
    return place / PAGE if place.is_dir() else place.with_suffix(".html")


def _loaded(options: Report, chip: Chip) -> Dataset:
    assert options.data is not None  # else nothing is loaded
    return for_chip(chip, load(options.data, seed=options.seed, image_size=options.image_size))

"""Technology files: a small TOML of named numbers, each with its source, checked field by field.

::

    name = "isaac-32nm"
    converter = "constant"
    write_unit = "row"
    about = "..."

    [dac_joules]
    value = 3.9e-13
    source = "ISAAC (Shafiee, ISCA 2016), table 1: 4 mW for 8 x 128 one-bit DACs at 100 ns"

Every error names file and line: ``my.toml:12: dac_joules``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from xbm_jax.crossbar.validate import check_choice, check_number
from xbm_jax.errors import SpecError
from xbm_jax.hardware.constants.names import CONSTANTS, CONVERTERS, WRITE_UNITS, is_whole, near

__all__ = ["Contents", "find", "read", "shipped"]

_FOLDER = Path(__file__).parent / "technologies"
_HEAD = ("name", "converter", "write_unit", "about")


class Contents(NamedTuple):
    """What a technology file says."""

    name: str
    converter: str
    write_unit: str
    about: str
    values: Mapping[str, float]
    sources: Mapping[str, str]


def shipped() -> tuple[str, ...]:
    """Names of the technologies that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def find(name_or_path: str | Path) -> Path:
    """The file of a shipped name, or of a path.

    Raises:
        SpecError: neither; says which names there are.
    """
    if isinstance(name_or_path, str) and name_or_path in shipped():
        return _FOLDER / f"{name_or_path}.toml"
    names = ", ".join(map(repr, shipped()))
    allowed = f"one of {names}, or the path of a .toml file"
    if not isinstance(name_or_path, str | Path):
        raise SpecError("technology", name_or_path, allowed)
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise SpecError("technology", str(name_or_path), allowed)
    if not path.is_file():
        raise SpecError("technology", str(path), f"no such file; the package has {names}")
    return path


def read(path: Path) -> Contents:
    """Read and check a technology file.

    Raises:
        SpecError: the first thing that is wrong, with file, line and field.
    """
    text, table = _parse(path)
    where = _Where(path.name, text)
    _check_names(where, table)
    _check_head(where, table)
    values, sources = {}, {}
    for name in (name for name in table if name not in _HEAD):
        values[name], sources[name] = _constant(where, name, table[name])
    missing = [name for name in CONVERTERS[table["converter"]] if name not in values]
    if missing:
        needed = f"converter {table['converter']!r} computes with {', '.join(map(repr, missing))}, which the file lacks"
        raise SpecError(where("converter"), table["converter"], needed)
    return Contents(table["name"], table["converter"], table["write_unit"], table.get("about", ""), values, sources)


# ---------------------------------------------------------------------------------------------------------------------
# Lines, which the parser does not keep


class _Where:
    """Names a field by file and line."""

    def __init__(self, file: str, text: str) -> None:
        self._file, self._lines = file, text.splitlines()

    def __call__(self, name: str, key: str | None = None) -> str:
        """``file:line: name`` or ``file:line: name.key``: the line of the key where found, else of the name."""
        field = name if key is None else f"{name}.{key}"
        start = self._find(rf"\s*\[\s*{_spelt(name)}\s*\]|\s*{_spelt(name)}\s*[=.]", 0)
        within = None if key is None or start is None else self._find(rf"\s*{_spelt(key)}\s*=|\s*\[", start + 1)
        header_next = within is not None and self._lines[within].lstrip().startswith("[")
        line = start if within is None or header_next else within
        return f"{self._file}:{1 if line is None else line + 1}: {field}"

    def _find(self, pattern: str, start: int) -> int | None:
        matches = (i for i in range(start, len(self._lines)) if re.match(pattern, self._lines[i]))
        return next(matches, None)


def _spelt(name: str) -> str:
    """A pattern for a key, bare or quoted."""
    return rf"[\"']?{re.escape(name)}[\"']?"


def _parse(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError("technology", str(path), f"a file of UTF-8 text that can be read ({error})") from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else max(1, len(text.splitlines()))
        shown = text.splitlines()[line - 1].strip() if text.strip() else ""
        raise SpecError(f"{path.name}:{line}", shown, f"TOML ({error})") from error


# ---------------------------------------------------------------------------------------------------------------------
# Checks


def _check_names(where: _Where, table: Mapping[str, Any]) -> None:
    for name in table:
        if name not in CONSTANTS and name not in _HEAD:
            alike = near(name) or [*_HEAD, *CONSTANTS]
            hint = f"no such field; a name ends with its unit, as in {', '.join(map(repr, alike))}"
            raise SpecError(where(name), table[name], hint)


def _check_head(where: _Where, table: Mapping[str, Any]) -> None:
    _text(where("name"), table.get("name"), "the technology's name")
    check_choice(where("converter"), table.get("converter"), tuple(CONVERTERS))
    check_choice(where("write_unit"), table.get("write_unit"), WRITE_UNITS)
    if "about" in table:
        _text(where("about"), table["about"], "what the technology is")


def _constant(where: _Where, name: str, entry: Any) -> tuple[float, str]:
    """The value and the source of one constant."""
    if not isinstance(entry, dict):
        raise SpecError(where(name), entry, "a table of 'value' and 'source': a number without a source is not taken")
    for key in entry:
        if key not in ("value", "source"):
            raise SpecError(where(name, key), entry[key], "no such key; a constant has 'value' and 'source'")
    for key in ("value", "source"):
        if key not in entry:
            raise SpecError(where(name), entry, f"missing {key!r}; a constant has 'value' and 'source'")
    _text(where(name, "source"), entry["source"], "where the number comes from")
    known = CONSTANTS[name]
    value = check_number(where(name, "value"), entry["value"], known.low, known.high)
    if is_whole(name) and value != int(value):
        raise SpecError(where(name, "value"), value, f"an integer from {known.low:g} to {known.high:g}")
    return value, entry["source"]


def _text(field: str, value: Any, meaning: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise SpecError(field, value, f"text that is not empty: {meaning}")

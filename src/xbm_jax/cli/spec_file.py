"""``--spec-file``: arrays, and layers with arrays of their own, as a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from xbm_jax.crossbar import CrossbarSpec
from xbm_jax.errors import SpecError, XbmError
from xbm_jax.models import LayerSpecs, Where
from xbm_jax.storage.codec import decode

__all__ = ["read_spec_file"]

_WHERE = ("path", "kind", "shape")


def read_spec_file(path: Path, base: CrossbarSpec) -> tuple[CrossbarSpec, LayerSpecs]:
    """The spec and the rules of a file: what its ``[spec]`` changes of ``base``, and its ``[[layers]]`` of that.

    A table of ``[[layers]]`` says which layers (``path``, a pattern; ``kind``; ``shape``, -1 for any size) and either
    ``digital = true`` or, in ``spec``, what they have otherwise. Parts (``cell``, ``adc``) are tables of changes;
    a device or a curve is one with its ``class``. The first table that matches a layer decides.

    Raises:
        SpecError: no such file, no TOML, or what is no field; named by its place in the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise SpecError("--spec-file", str(path), f"a file that can be read ({error.strerror})") from error
    except ValueError as error:
        raise SpecError("--spec-file", str(path), f"TOML in UTF-8 ({error})") from error
    _check_keys("--spec-file", table, ("spec", "layers"))
    spec = _changed("spec", base, table.get("spec", {}))
    layers = table.get("layers", [])
    if not isinstance(layers, list) or not all(isinstance(entry, dict) for entry in layers):
        raise SpecError("layers", layers, "tables, [[layers]]")
    rules: dict[Any, CrossbarSpec | None] = {}
    for number, entry in enumerate(layers):
        where, own = _layer(f"layers[{number}]", entry, spec)
        if where in rules:
            raise SpecError(f"layers[{number}]", entry, "other layers than an earlier table has")
        rules[where] = own
    return spec, rules


def _layer(field: str, entry: dict[str, Any], spec: CrossbarSpec) -> tuple[Where, CrossbarSpec | None]:
    _check_keys(field, entry, (*_WHERE, "digital", "spec"))
    digital = entry.get("digital", False)
    if not isinstance(digital, bool) or digital == ("spec" in entry):
        raise SpecError(field, entry, "either digital = true or a table spec")
    given = {name: entry[name] for name in _WHERE if name in entry}
    for name in ("path", "kind"):
        if not isinstance(given.get(name, ""), str):
            raise SpecError(f"{field}.{name}", given[name], "text")
    if "shape" in given:
        shape = given["shape"]
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            raise SpecError(f"{field}.shape", shape, "a list of sizes, -1 for any")
        given["shape"] = tuple(None if size == -1 else size for size in shape)
    return Where(**given), None if digital else _changed(f"{field}.spec", spec, entry["spec"])


def _changed(field: str, base: Any, changes: Any) -> Any:
    """A dataclass with the fields that a table names."""
    if not isinstance(changes, dict):
        raise SpecError(field, changes, "a table")
    _check_keys(field, changes, tuple(f.name for f in dataclasses.fields(base)))
    given = {name: _value(f"{field}.{name}", getattr(base, name), value) for name, value in changes.items()}
    try:
        return dataclasses.replace(base, **given)
    except XbmError:
        raise
    except (TypeError, ValueError) as error:
        raise SpecError(field, changes, f"fields of a {type(base).__name__} ({error})") from error


def _value(field: str, held: Any, value: Any) -> Any:
    if isinstance(value, dict) and "class" not in value and dataclasses.is_dataclass(held):
        return _changed(field, held, value)
    try:
        return decode(value)
    except XbmError as error:
        raise SpecError(field, value, str(error)) from error


def _check_keys(field: str, table: dict[str, Any], allowed: tuple[str, ...]) -> None:
    if unknown := [name for name in table if name not in allowed]:
        raise SpecError(field, unknown[0], "one of " + ", ".join(allowed))

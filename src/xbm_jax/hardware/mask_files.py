"""Mask words in files: a ``$readmemh`` file a layer, and one of JSON that says what they are and checks them."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xbm_jax.crossbar import Plan
from xbm_jax.errors import BankError
from xbm_jax.hardware.mask_words import MaskWords, hex_word, word_bits
from xbm_jax.storage.forms import check_form, stamp
from xbm_jax.tasks.marks import canonical

__all__ = ["CARD", "buffer_card", "geometry", "memh", "read_card", "read_words"]

CARD = "buffer.json"
_FORM = 1
_ORDER = {
    "line": "words by array above, array beside, row tile of the array (in reading order), plane, the last fastest",
    "word": "one bit a physical bit line, bit line 0 the least significant; column c, slice s and polarity p "
    "(0: positive) of an array stand on bit line (c * slices + s) * polarities + p; unused ones are 0",
    "plane": "bits of a column's code, least significant first; rule says what a code stands for",
    "crc32": "of the text of each word, eight hexadecimal digits each",
    "level": "float16 bits of what an off column counts, digital",
    "sha256": "of this file's other entries: JSON on one line, keys sorted",
}


def buffer_card(about: Mapping[str, Any], layers: Sequence[MaskWords]) -> dict[str, Any]:
    """What ``buffer.json`` holds: ``about`` the task, and each layer's geometry, file and checksums; no words."""
    files = _file_names([layer.path for layer in layers])
    cards = [_layer_card(layer, file) for layer, file in zip(layers, files, strict=True)]
    card = {**stamp(_FORM), **about, "order": _ORDER, "layers": cards}
    return {**card, "sha256": _digest(card)}


def _file_names(paths: list[str]) -> list[str]:
    """A file name of letters, digits, ``_``, ``-`` and dots for each layer, no two alike on any file system."""
    names: list[str] = []
    for path in paths:
        stem = re.sub(r"[^A-Za-z0-9_-]", ".", path).strip(".")[:100] or "layer"
        number, name = 1, stem
        while f"{name}.memh".lower() in {taken.lower() for taken in names}:
            number, name = number + 1, f"{stem}.{number + 1}"
        names.append(f"{name}.memh")
    return names


def _words(layer: MaskWords) -> list[str]:
    """All words of a layer as text, in the order of lines."""
    return [hex_word(word) for word in layer.words.reshape(-1, layer.words.shape[-1])]


def memh(layer: MaskWords) -> str:
    """A layer's words as a file for Verilog's ``$readmemh``: comments, then a word a line."""
    spec = layer.plan.spec
    head = [
        f"layer {layer.path!a}",
        f"width {spec.cols} bits, one a bit line: {spec.slices} slices and {spec.polarities} polarities a column",
        f"arrays {layer.arrays[0]} above each other, {layer.arrays[1]} beside; row tiles {layer.tiles} an array; "
        f"planes {layer.planes}",
        f"line: {_ORDER['line']}",
        f"word: {_ORDER['word']}",
    ]
    return "".join([*(f"// {line}\n" for line in head), *(f"{word}\n" for word in _words(layer))])


def geometry(plan: Plan) -> dict[str, Any]:
    """What decides which weights a word's bits gate, JSON-like."""
    spec = plan.spec
    return {
        "kernel_shape": list(plan.kernel_shape),
        "groups": plan.groups,
        "row_order": str(spec.row_order),
        "rows": spec.rows,
        "cols": spec.cols,
        "active_rows": spec.tile_height,
        "slices": spec.slices,
        "polarities": spec.polarities,
        "arrays": list(plan.array_grid),
        "tiles": plan.tiles_per_array,
    }


def _layer_card(layer: MaskWords, file: str) -> dict[str, Any]:
    checks = "".join(_crc(word) for word in _words(layer))
    level = None if layer.level is None else f"{layer.level:04x}"
    card = {"path": layer.path, "file": file, **geometry(layer.plan), "planes": layer.planes}
    return {**card, "level": level, "crc32": checks}


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _digest(card: Mapping[str, Any]) -> str:
    own = {name: value for name, value in card.items() if name != "sha256"}
    return hashlib.sha256(canonical(own).encode()).hexdigest()


def read_card(folder: Path) -> dict[str, Any]:
    """What a folder's ``buffer.json`` holds, unchanged.

    Raises:
        BankError: no such file, or one that was changed, is damaged or of a newer version.
    """
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        undamaged = card["sha256"] == _digest(card)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BankError("folder", str(folder), f"a folder with a {CARD} in it") from error
    except json.JSONDecodeError as error:
        raise BankError(f"{CARD}:{error.lineno}", str(folder), f"undamaged JSON ({error.msg})") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BankError(CARD, str(folder), f"an undamaged card ({error!r})") from error
    check_form("buffer", card, _FORM)
    if not undamaged:
        raise BankError(f"{CARD}.sha256", card["sha256"], f"{_digest(card)}: it was changed or damaged")
    return card


def read_words(file: Path, cols: int, checks: str) -> Iterator[tuple[int, np.ndarray]]:
    """Line numbers and words (uint8 [cols]) of a file, each checked.

    Args:
        file: as :func:`memh` made it.
        cols: bits of a word.
        checks: CRC-32 of all words, eight hexadecimal digits each.

    Raises:
        BankError: a word that is not the one that was written, too many or too few: names file and line.
    """
    count, found = len(checks) // 8, 0
    try:
        text = file.read_bytes().decode("ascii", "replace")
    except OSError as error:
        raise BankError("file", str(file), f"a readable file of {count} words ({error.strerror})") from error
    for number, line in enumerate(text.split("\n"), start=1):
        word = line.partition("//")[0].strip()
        if not word:
            continue
        place = f"{file.name}:{number}"
        if found == count:
            raise BankError(place, word, f"the end: the layer has {count} words")
        try:
            bits = word_bits(word, cols)
        except BankError as error:
            raise BankError(place, word, error.allowed) from error
        if _crc(word) != checks[8 * found : 8 * found + 8]:
            raise BankError(place, word, f"the word that was written, whose CRC-32 {CARD} gives")
        found += 1
        yield number, bits
    if found < count:
        raise BankError(f"{file.name}:{text.count(chr(10)) + 1}", f"the end after {found} words", f"{count} words")

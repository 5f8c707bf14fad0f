"""Files that somebody made to do harm: headers that lie, paths that climb, archives that swell, numbers that are none.

Each is opened in a process that may take a GiB beyond what it has, so that memory taken on a file's word is an error
of its own.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

from reliability.small import METHODS, Counts, chip, make_bank, rng, tiny
from xbm_jax.banks import MaskBank, load_bank, load_chip
from xbm_jax.data import load
from xbm_jax.errors import BankError, XbmError
from xbm_jax.models import load_backbone

ROOM = 2**30


def hostile_files(trials: int) -> Counts:
    """Banks, exported banks, weights and data, in turn; an error that names what is wrong is wanted of each."""
    command = [sys.executable, "-m", "reliability.hostile", str(trials)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(ran.stderr[-2000:])
    return Counter(json.loads(ran.stdout.splitlines()[-1]))


def _all(trials: int) -> Counts:
    draw, found = rng(6), Counter()
    with tempfile.TemporaryDirectory() as place:
        makers = [_banks(Path(place)), _exports(Path(place)), _weights(Path(place)), _data(Path(place))]
        files = [next(makers[i % len(makers)])(draw) for i in range(trials)]
        limit = psutil.Process().memory_info().vms + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for open_it in files:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[_outcome(open_it)] += 1
    return found


def _outcome(open_it: Callable[[], object]) -> str:
    try:
        open_it()
    except XbmError:
        return "named"
    except MemoryError:
        return "memory"
    except Exception as error:
        print(type(error).__name__, str(error)[:200], file=sys.stderr)
        return "bare"
    return "silent"


_Made = Iterator[Callable[[np.random.Generator], Callable[[], object]]]


def _banks(place: Path) -> _Made:
    """Banks whose card, index or description says what cannot be."""
    number = 0
    while True:
        number += 1
        folder = place / f"bank{number}"

        def make(draw: np.random.Generator, folder: Path = folder, kind: int = number) -> Callable[[], object]:
            make_bank(folder)
            path = folder / "bank.json"
            texts = [path, *sorted(folder.rglob("_CHECKPOINT_METADATA"))]
            victim = path if kind % 2 else texts[1 + int(draw.integers(len(texts) - 1))]
            victim.write_bytes(_spoiled_json(draw, victim.read_bytes()))
            return lambda: _everything_of(folder)

        yield make


def _everything_of(folder: Path) -> None:
    """Read the chip, every task and every older generation."""
    bank = MaskBank.open(folder, load_chip(folder / "chip", tiny.network()))
    for name in METHODS:
        bank.get(name)
    for damage in bank.verify():
        raise BankError("bank", str(folder), damage.error)


def _spoiled_json(draw: np.random.Generator, content: bytes) -> bytes:
    """JSON of a kind that programs fall over."""
    deep = b"[" * 100_000 + b"]" * 100_000
    huge = b'{"format": 1e999, "chip": ' + b"9" * 5000 + b"}"
    lies = {"format": 4, "chip": {"network": ["x"] * 3}, "arrays": {"../../x": {"shape": [2**62]}}}
    wrong = json.dumps(lies).encode()
    at = int(draw.integers(len(content)))
    cut = content[:at] + b"\xff\xfe" + content[at:]
    return [deep, huge, wrong, cut, b"null", b"[]", content[:at]][int(draw.integers(7))]


def _exports(place: Path) -> _Made:
    """Exported banks: safetensors whose header lies of sizes, types and names."""
    make_bank(place / "source")
    MaskBank.open(place / "source", chip()).export(place / "good.safetensors", chip=True)
    good = (place / "good.safetensors").read_bytes()
    number = 0
    while True:
        number += 1
        path = place / f"export{number}.safetensors"

        def make(draw: np.random.Generator, path: Path = path) -> Callable[[], object]:
            path.write_bytes(_spoiled_tensors(draw, good))
            return lambda: _everything_in(path)

        yield make


def _everything_in(path: Path) -> None:
    bank = load_bank(path, tiny.network())
    for name in bank.names:
        bank.get(name)


def _spoiled_tensors(draw: np.random.Generator, good: bytes) -> bytes:
    size = struct.unpack("<Q", good[:8])[0]
    header, data = json.loads(good[8 : 8 + size]), good[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    name = names[int(draw.integers(len(names)))]
    kind = int(draw.integers(9))
    if kind == 0:
        return struct.pack("<Q", 2**62) + good[8:]
    if kind == 1:
        header[name]["shape"] = [2**40, 2**20]
    elif kind == 2:
        header[name]["dtype"] = "F64" if header[name]["dtype"] != "F64" else "I8"
    elif kind == 3:
        header[name]["data_offsets"] = [0, 2**60]
    elif kind == 4:
        header["../../../etc/" + name] = header.pop(name)
    elif kind == 5:
        del header[name]
    elif kind == 6:
        data = data[: len(data) // 2]
    elif kind == 7:
        flipped = bytearray(data)
        flipped[int(draw.integers(len(data)))] ^= 0x7F
        data = bytes(flipped)
    else:
        header["__metadata__"] = {"json": "[" * 50_000}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _weights(place: Path) -> _Made:
    """Weights: archives that swell, pickles, shapes and numbers that are none."""
    number = 0
    while True:
        number += 1

        def make(draw: np.random.Generator, number: int = number) -> Callable[[], object]:
            kind = int(draw.integers(5))
            path = place / f"weights{number}{('.npz', '.pt', '.npz', '.safetensors', '.npz')[kind]}"
            if kind == 0:
                path.write_bytes(_bomb("conv/kernel.npy"))
            elif kind == 1:
                path.write_bytes(b"\x80\x04c" + b"os\nsystem\n(X\x04\x00\x00\x00trueR." + draw.bytes(64))
            elif kind == 2:
                np.savez(path, **{"stem/conv/kernel": np.full((3, 3, 3, 16), np.nan, np.float32)})
            elif kind == 3:
                path.write_bytes(struct.pack("<Q", int(draw.integers(2**40))) + draw.bytes(200))
            else:
                np.savez(path, x=np.array(["a", None], object), allow_pickle=True)
            return lambda: load_backbone("cifar-resnet20", str(path))

        yield make


def _data(place: Path) -> _Made:
    """Tasks: archives that swell, arrays whose header lies, labels that are none, images that are none."""
    number = 0
    while True:
        number += 1

        def make(draw: np.random.Generator, number: int = number) -> Callable[[], object]:
            path, kind = place / f"data{number}.npz", int(draw.integers(5))
            images, labels = np.zeros((8, 8, 8, 3), np.uint8), np.arange(8) % 2
            arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
            if kind == 0:
                path.write_bytes(_bomb("x_train.npy"))
            elif kind == 1:
                np.savez(path, **(arrays | {"y_train": labels.astype(float) * np.nan}))
            elif kind == 2:
                np.savez(path, **arrays)
                path.write_bytes(path.read_bytes()[: int(draw.integers(20, path.stat().st_size))])
            elif kind == 3:
                np.savez(path, **(arrays | {"x_train": np.array([b"x" * 9], object)}), allow_pickle=True)
            else:
                np.savez(path, **(arrays | {"y_test": labels + 2**40}))
            return lambda: load(f"npz:{path}")

        yield make


def _bomb(name: str) -> bytes:
    """A small archive of an array that has 64 GiB by its header, and 64 MiB in fact."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**34,)})
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w") as member,
    ):
        member.write(header.getvalue())
        for _ in range(2**6):
            member.write(b"\0" * 2**20)
    return out.getvalue()


if __name__ == "__main__":
    print(json.dumps(_all(int(sys.argv[1]))))

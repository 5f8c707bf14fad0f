"""State dicts as PyTorch wrote them, in both of its formats, and files that want more than tensors.

``torch_zip.pt`` and ``torch_legacy.pt`` were written by PyTorch itself, see ``tools/build_model_oracles.py``.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from xbm_jax.errors import WeightsError
from xbm_jax.models.weights import read_weights

FOLDER = Path(__file__).parent
BASE = np.arange(24, dtype=np.float32).reshape(4, 6) / 8


def expected() -> dict[str, np.ndarray]:
    """What went into the files, by hand."""
    return {
        "plain": BASE,
        "transposed": BASE.T,
        "row": BASE[2],
        "half": np.array([1.5, -2.25], np.float16),
        "brain": np.array([1.5, -2.25], jnp.bfloat16),
        "double": np.array([[1e-300]]),
        "parameter": np.ones(3, np.float32),
        "counter": np.array(1000),
        "empty": np.zeros((0, 3), np.float32),
    }


@pytest.mark.parametrize("name", ["torch_zip.pt", "torch_legacy.pt"])
def test_both_formats(name: str) -> None:
    read = read_weights(FOLDER / name)
    assert list(read) == list(expected())
    for key, array in expected().items():
        assert read[key].dtype == array.dtype
        np.testing.assert_array_equal(read[key], array, err_msg=key)
    read["plain"][0, 0] = 5  # arrays of one's own: storages were shared
    assert read["row"][0] == BASE[2, 0] and read["transposed"][0, 0] == 0


@pytest.mark.parametrize("suffix", [".pth", ".th", ".bin"])
def test_usual_endings(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"w{suffix}").write_bytes((FOLDER / "torch_zip.pt").read_bytes())
    assert read_weights(tmp_path / f"w{suffix}").keys() == expected().keys()


def archive(content: Any, path: Path) -> Path:
    """A checkpoint whose pickle is ``content``."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w/data.pkl", content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    return path


class Command:
    """What a hostile file would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_file_is_run(legacy: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "w.pt"
    if legacy:
        parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"a": Command(mark)}]
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    else:
        archive({"a": Command(mark)}, path)
    with pytest.raises(WeightsError, match="mkdir in the file: only tensors are read"):
        read_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "no tensors"),
        ([1, 2], "a list: not a state dict"),
        (b"", "a whole .pt file"),
        (b"garbage", "a whole .pt file"),
    ],
)
def test_pickles_that_are_no_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        read_weights(archive(content, tmp_path / "w.pt"))


def test_zip_archives_of_others_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        file.writestr("readme", "hello")
    with pytest.raises(WeightsError, match=r"without data\.pkl"):
        read_weights(tmp_path / "w.pt")


def test_other_byte_orders_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(FOLDER / "torch_zip.pt") as old, zipfile.ZipFile(tmp_path / "w.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("/byteorder") else old.read(name))
    with pytest.raises(WeightsError, match="big-endian"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["torch_zip.pt", "torch_legacy.pt"])
def test_cut_files_never_show_as_another_error(name: str, tmp_path: Path) -> None:
    """Every tenth length: refused by name. A legacy file's last bytes are the last storage's, checked by its views."""
    whole = (FOLDER / name).read_bytes()
    path = tmp_path / "w.pt"
    for length in range(0, len(whole) - 1, 10):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"a whole \.pt file"):
            read_weights(path)


def test_a_flipped_bit_never_shows_as_another_error(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    for name in ("torch_zip.pt", "torch_legacy.pt"):
        whole = (FOLDER / name).read_bytes()
        rng = np.random.default_rng(0)
        for _ in range(200):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                read = read_weights(path)
            except WeightsError:
                continue
            assert all(isinstance(array, np.ndarray) for array in read.values())


def test_views_stay_inside_their_storage(tmp_path: Path) -> None:
    """A pickle that claims more elements than the storage has reads no foreign memory."""
    content = (FOLDER / "torch_zip.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(tmp_path / "w.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:8] if "/data/" in name else old.read(name))
    with pytest.raises(WeightsError, match="beyond its storage"):
        read_weights(tmp_path / "w.pt")

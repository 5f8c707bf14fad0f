"""State dicts as PyTorch wrote them, in both of its formats, and files that want more than tensors.

``torch_zip.pt`` and ``torch_legacy.pt`` were written by PyTorch itself, see ``tools/build_model_oracles.py``.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from xbm_jax.errors import WeightsError
from xbm_jax.models.weights.files import read_weights

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
        parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"a": Command(mark)}, []]
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    else:
        archive({"a": Command(mark)}, path)
    with pytest.raises(WeightsError, match=r"no tensors: not a state dict; found a \(\w+\.mkdir\)"):
        read_weights(path)
    assert not mark.exists()


# ---------------------------------------------------------------------------------------------------------------------
# What training scripts write beside the weights, written here without PyTorch


class Torch:
    """Stands for a name of PyTorch's while it is pickled."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.where, self.arguments = (module, name), arguments


class Storage:
    """A storage of float32 numbers."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = np.ascontiguousarray(array, np.float32)


_PICKLER: Any = pickle._Pickler


class Checkpoint(_PICKLER):
    """Pickles arrays as ``torch.save`` does, and collects the storages' bytes."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, 2)
        self.data: list[bytes] = []

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        self.data.append(obj.array.tobytes())
        return "storage", Torch("torch", "FloatStorage"), str(len(self.data) - 1), "cpu", obj.array.size

    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, np.ndarray):
            strides = tuple(s // 4 for s in np.ascontiguousarray(obj, np.float32).strides)
            obj = Torch("torch._utils", "_rebuild_tensor_v2", Storage(obj), 0, obj.shape, strides, False, {})
        if not isinstance(obj, Torch):
            return super().save(obj, save_persistent_id)
        self.write(pickle.GLOBAL + "{}\n{}\n".format(*obj.where).encode())
        if obj.arguments:
            super().save(obj.arguments)
            self.write(pickle.REDUCE)
        return None


def write_checkpoint(content: Any, path: Path) -> Path:
    buffer = io.BytesIO()
    pickler = Checkpoint(buffer)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", buffer.getvalue())
        for i, storage in enumerate(pickler.data):
            file.writestr(f"archive/data/{i}", storage)
    return path


STATE = {"conv.weight": BASE, "conv.bias": BASE[0].copy()}
OTHER = {"conv.weight": 0 * BASE}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3, "loss": np.zeros(1)},
        {"net": STATE, "acc": 91.2},
        {"model": {"state_dict": STATE}},
        {"state_dict_ema": STATE},
        {"state_dict": STATE, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9)},
        {"optimizer": {"state": {0: {"exp_avg": BASE}}}, "model_state_dict": STATE},
        {
            "state_dict": STATE,
            "scheduler": Torch("torch.optim", "StepLR", 1, 2),
            "device": Torch("torch", "device", "cpu"),
        },
    ],
)
def test_checkpoints_of_training_scripts(content: Any, tmp_path: Path) -> None:
    read = read_weights(write_checkpoint(content, tmp_path / "c.pth.tar"))
    assert read.keys() == STATE.keys()
    for name, array in STATE.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": STATE, "state_dict_ema": OTHER},
        {"model": STATE, "ema": {"module": OTHER}},
        STATE | {"ema": OTHER},
    ],
)
def test_plain_weights_go_before_averaged_ones_and_it_is_said(content: Any, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="took the plain weights; averaged ones stand beside them: (state_dict_)?ema"):
        read = read_weights(write_checkpoint(content, tmp_path / "c.pt"))
    np.testing.assert_array_equal(read["conv.weight"], BASE)


def test_names_that_were_found_are_listed(tmp_path: Path) -> None:
    content = {"generator": STATE, "args": argparse.Namespace(lr=0.1), "epoch": 3}
    with pytest.raises(
        WeightsError, match=r"found generator \(dict of 2\), args \(argparse.Namespace\), epoch \(int\)"
    ):
        read_weights(write_checkpoint(content, tmp_path / "c.pt"))


def test_tensors_of_other_kinds_are_named(tmp_path: Path) -> None:
    content = STATE | {"fc.weight": Torch("torch._utils", "_rebuild_qtensor", 1, 2)}
    with pytest.raises(WeightsError, match=r"not read: fc.weight \(torch._utils._rebuild_qtensor\)"):
        read_weights(write_checkpoint(content, tmp_path / "c.pt"))


def test_views_may_not_multiply_what_a_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many names of one storage: what they add up to is bounded before any array is made."""
    monkeypatch.setattr("xbm_jax.archives._ALWAYS", 0)
    storage, view = Storage(np.ones(2500)), (0, (2500,), (1,), False, {})
    content = {f"w{i}": Torch("torch._utils", "_rebuild_tensor_v2", storage, *view) for i in range(400)}
    path = write_checkpoint(content, tmp_path / "c.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "w.pt", "w") as new:
        pickled = re.sub(
            rb"X\x01\x00\x00\x00\d|X\x02\x00\x00\x00\d\d|X\x03\x00\x00\x00\d\d\d",
            b"X\1\0\0\x000",
            old.read("archive/data.pkl"),
        )
        new.writestr("archive/data.pkl", pickled)
        new.writestr("archive/data/0", old.read("archive/data/0"))
    with pytest.raises(WeightsError, match="unpacks to 4000000 bytes"):
        read_weights(tmp_path / "w.pt")


def test_a_memo_position_takes_no_memory(tmp_path: Path) -> None:
    """Position 2 ** 31 of the memo: an unpickler with an array for a memo takes 32 GB."""
    content = b"\x80\x02}r\x00\x00\x00\x80."
    with pytest.raises(WeightsError, match="no tensors"):
        read_weights(archive(content, tmp_path / "w.pt"))


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

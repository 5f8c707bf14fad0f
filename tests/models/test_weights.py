"""Weight files and PyTorch's names."""

from __future__ import annotations

import json
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.tiny import random_arrays, tiny_network
from xbm_jax.errors import ModelError, WeightsError
from xbm_jax.models import MODELS, load_backbone, named_network
from xbm_jax.models.weights.files import read_weights
from xbm_jax.models.weights.names import rename

NAMES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var", "kernel": "weight"}


def to_torch(arrays: dict[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    """A state dict as ``torch.save`` of a CIFAR ResNet holds it: dots, OIHW, [out, in], batch counters."""
    state: dict[str, np.ndarray] = {}
    for path, array in arrays.items():
        *layer, leaf = path.split("/")
        name = prefix + ".".join(part.replace("_", ".") for part in layer)
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, (0,))
        state[f"{name}.{NAMES[leaf]}"] = np.ascontiguousarray(array.transpose(axes))
        if leaf == "var":
            state[f"{name}.num_batches_tracked"] = np.array(1000)
    return state


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return random_arrays(named_network("cifar-resnet20", 10))


def assert_same(ours: dict[str, np.ndarray], arrays: dict[str, np.ndarray]) -> None:
    assert ours.keys() == arrays.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(ours[path], array)


@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "_orig_mod.", "model.", "ema.", "module.ema.net."])
def test_torch_names_and_layouts(prefix: str, arrays: dict[str, np.ndarray]) -> None:
    state = to_torch(arrays, prefix)
    assert state[f"{prefix}layer2.0.conv1.weight"].shape == (32, 16, 3, 3)
    assert f"{prefix}bn1.num_batches_tracked" in state
    averaged = state | {"n_averaged": np.array(9)}
    for given in (state, averaged):
        assert_same(rename(given, MODELS["cifar-resnet20"].names), arrays)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_our_names_may_have_dots(prefix: str, arrays: dict[str, np.ndarray]) -> None:
    dotted = {prefix + path.replace("/", "."): array for path, array in arrays.items()}
    assert_same(rename(dotted, MODELS["cifar-resnet20"].names), arrays)


def test_a_prefix_that_not_all_names_have_stays(arrays: dict[str, np.ndarray]) -> None:
    state = to_torch(arrays, "model.") | {"criterion.weight": np.ones(3, np.float32)}
    with pytest.raises(WeightsError, match=r"criterion\.weight is unknown"):
        load_backbone("cifar-resnet20", state)


def test_nested_mappings_and_tuples_of_names(arrays: dict[str, np.ndarray]) -> None:
    tuples = {tuple(path.split("/")): array for path, array in arrays.items()}
    collections: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for (*layers, leaf), array in tuples.items():
        below = collections["batch_stats" if leaf in ("mean", "var") else "params"]
        for layer in layers:
            below = below.setdefault(layer, {})
        below[leaf] = array
    forms: tuple[Any, ...] = (tuples, collections)
    for given in forms:
        loaded = load_backbone("cifar-resnet20", given)
        assert_same({p: np.asarray(a) for p, a in loaded.arrays.items()}, arrays)


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("bn1/var", lambda a: -a - 1e-9, "bn1/var holds variances below zero"),
        ("conv1/kernel", lambda a: (50 * a).astype(np.int8), "conv1/kernel is int8, no real floating-point numbers"),
        ("conv1/kernel", lambda a: a.astype(np.complex64), "conv1/kernel is complex64, no real"),
        ("linear/bias", lambda a: a.astype(str), "linear/bias is <U32, no real"),
        ("linear/bias", lambda a: a > 0, "linear/bias is bool, no real"),
        ("bn1/scale", lambda a: np.full(a.shape, 1e300), "bn1/scale holds NaN or infinity"),
    ],
)
def test_values_that_are_no_weights(path: str, change: Any, says: str, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(WeightsError, match=f"1 mismatches.*(?s:.*){says}"):
        load_backbone("cifar-resnet20", arrays | {path: change(arrays[path])})


def test_upper_case_suffixes(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", allow_pickle=False, **arrays)
    assert_same(read_weights((tmp_path / "w.npz").rename(tmp_path / "W.NPZ")), arrays)


# ---------------------------------------------------------------------------------------------------------------------
# Shards


@pytest.fixture
def shards(arrays: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """The index of two shards."""
    names, split = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], len(arrays) // 2
    map_ = {path: names[i >= split] for i, path in enumerate(arrays)}
    for name in names:
        save_file({path: arrays[path] for path in arrays if map_[path] == name}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": map_}))
    return index


def test_an_index_reads_all_shards(shards: Path, arrays: dict[str, np.ndarray]) -> None:
    for given in (shards, str(shards)):
        assert_same(read_weights(given), arrays)


def test_one_shard_is_refused(shards: Path) -> None:
    with pytest.raises(WeightsError, match=r"shard 2 of 2; give the index of all, NAME\.index\.json"):
        read_weights(shards.parent / "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("no json", 'an index with a "weight_map"'),
        ("[]", 'an index with a "weight_map"'),
        ('{"weight_map": {"a": "../x.safetensors"}}', "without a folder"),
        ('{"weight_map": {"a": "absent.safetensors"}}', "an existing file"),
        ('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', r"\['a'\]: arrays that the shards of"),
    ],
)
def test_a_broken_index(shards: Path, content: str, says: str) -> None:
    shards.write_text(content)
    with pytest.raises(WeightsError, match=says):
        read_weights(shards)
    with pytest.raises(WeightsError, match="an existing file"):
        read_weights(shards.parent / "other.index.json")


def test_headers_that_claim_more_than_there_is(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as file, file.open("a.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as file:
        file.writestr("README", "no array")
    for name in ("w.safetensors", "w.npz", "text.npz"):
        with pytest.raises(WeightsError, match="a whole"):
            read_weights(tmp_path / name)


def test_our_names_pass_unchanged(arrays: dict[str, np.ndarray]) -> None:
    assert_same(rename(arrays, MODELS["cifar-resnet20"].names), arrays)


@pytest.mark.parametrize("names", ["ours", "torch"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_backbone_from_a_file(suffix: str, names: str, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    content = arrays if names == "ours" else to_torch(arrays, "module.")
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, allow_pickle=False, **content)
    else:
        save_file(content, path)
    for given in (path, str(path)):
        loaded = load_backbone("cifar-resnet20", given)
        assert loaded.calibration is None
        assert_same({p: np.asarray(a) for p, a in loaded.arrays.items()}, arrays)


def test_brain_floats_are_read(tmp_path: Path) -> None:
    """The upper halves of float32 numbers, in a file written by hand: header length, header, data."""
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = np.array([1.5, -2.0], np.float32).view(np.uint16)[1::2].tobytes()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    np.testing.assert_array_equal(read_weights(tmp_path / "w.safetensors")["a"].astype(np.float32), [1.5, -2.0])


def test_the_head_decides_the_number_of_classes() -> None:
    arrays = random_arrays(named_network("cifar-resnet20", 7))
    assert load_backbone("cifar-resnet20", arrays).network.shapes["linear/kernel"] == (64, 7)


def test_mismatches_of_a_file_are_listed_at_once(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    content = dict(arrays)
    del content["conv1/kernel"], content["linear/bias"]
    content["layer1_0/conv1/kernel"] = content["layer1_0/conv1/kernel"][:1]
    content["bn1/scale"] = np.full(16, np.nan, np.float32)
    content["fc/bias"] = np.zeros(3, np.float32)
    np.savez(tmp_path / "w.npz", allow_pickle=False, **content)
    with pytest.raises(WeightsError) as caught:
        load_backbone("cifar-resnet20", tmp_path / "w.npz")
    lines = str(caught.value).split("\n  ")[1:]
    assert [line for line in lines if not line.startswith("linear")] == [
        "bn1/scale holds NaN or infinity",
        "conv1/kernel is missing",
        "fc/bias is unknown",
        "layer1_0/conv1/kernel has shape (1, 3, 16, 16), not (3, 3, 16, 16)",
    ]
    assert "linear/bias is missing" in lines


# ---------------------------------------------------------------------------------------------------------------------
# Damaged and absent files


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_files_are_refused(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    arrays = random_arrays(tiny_network())
    if suffix == ".npz":
        np.savez_compressed(path, allow_pickle=False, **arrays)
    else:
        save_file(arrays, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(WeightsError, match=rf"a whole {suffix} file") as caught:
        read_weights(path)
    assert caught.value.value == str(path)


def test_a_flipped_bit_never_shows_as_another_error(tmp_path: Path) -> None:
    """A damaged archive is refused by name, or its arrays are whole (the flip hit a field that nobody reads)."""
    path = tmp_path / "w.npz"
    arrays = random_arrays(tiny_network())
    np.savez_compressed(path, allow_pickle=False, **arrays)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            read = read_weights(path)
        except WeightsError:
            refused += 1
        else:
            for name, array in read.items():
                np.testing.assert_array_equal(array, arrays.get(name, array))
    assert refused > 100


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(WeightsError, match=r"a whole \.npz file"):
        read_weights(path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", allow_pickle=True, a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("name", ["w.h5", "w", "w.npy", "w.tar"])
def test_other_kinds_of_file_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"abc")
    with pytest.raises(
        WeightsError, match=r"a \.npz, \.safetensors, \.pt, \.pth, \.pth\.tar, \.th, \.ckpt or \.bin file"
    ):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["absent.npz", "absent.safetensors"])
def test_absent_files_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="an existing file") as caught:
        load_backbone("cifar-resnet20", tmp_path / name)
    assert caught.value.value == str(tmp_path / name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "w.npz").mkdir()
    with pytest.raises(WeightsError, match="an existing file"):
        read_weights(tmp_path / "w.npz")


def test_unknown_models_are_named() -> None:
    for call in (lambda: load_backbone("resnet18"), lambda: named_network("resnet18", 10)):
        with pytest.raises(ModelError, match="one of cifar-resnet20, cifar-resnet56") as caught:
            call()
        assert caught.value.value == "resnet18"


def test_a_model_without_bundled_weights_asks_for_a_file() -> None:
    with pytest.raises(WeightsError, match=r"cifar-resnet56 ships none.*cifar-resnet20"):
        load_backbone("cifar-resnet56")


# ---------------------------------------------------------------------------------------------------------------------
# The hub, without a network


def stand_in(monkeypatch: pytest.MonkeyPatch, download: object) -> None:
    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_hub_files_are_read_like_others(
    arrays: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repository: str, file: str, revision: str | None) -> str:
        asked.append((repository, file))
        return str(tmp_path / "cached.safetensors")

    stand_in(monkeypatch, download)
    save_file(to_torch(arrays), tmp_path / "cached.safetensors")
    loaded = load_backbone("cifar-resnet20", "hf://someone/resnet20/deep/model.safetensors")
    assert asked == [("someone/resnet20", "deep/model.safetensors")]
    assert_same({p: np.asarray(a) for p, a in loaded.arrays.items()}, arrays)


def test_the_hub_may_be_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, file: str, revision: str | None) -> str:
        raise ConnectionError("no route")

    stand_in(monkeypatch, download)
    with pytest.raises(WeightsError, match=r"or one on disk \(ConnectionError: no route\)"):
        read_weights("hf://a/b/c.npz")


def test_the_hub_needs_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'xbm_jax\[hub\]'"):
        read_weights("hf://a/b/c.npz")


@pytest.mark.parametrize(("address", "file"), [("hf://a/b", ""), ("hf://a/b/", ""), ("hf://a/b/c.npz", "c.npz")])
def test_a_repository_alone_means_its_safetensors(address: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(repository: str, file: str, revision: str | None) -> str:
        asked.append(f"{repository} {file}")
        raise ConnectionError("no route")

    stand_in(monkeypatch, download)
    with pytest.raises(WeightsError, match="no route"):
        read_weights(address)
    assert asked == [f"a/b {file or 'model.safetensors'}"]


@pytest.mark.parametrize("address", ["hf://", "hf://a", "hf:///b/c", "hf://a//c"])
def test_hub_addresses_name_owner_and_repository(address: str) -> None:
    with pytest.raises(WeightsError, match="hf://owner/repository/file"):
        read_weights(address)

"""Arrays on disk: whole or not at all, and never wrong without a word."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tasks import tiny
from xbm_jax.errors import BankError, OutputError
from xbm_jax.tasks import store
from xbm_jax.tasks.files import replace_file
from xbm_jax.tasks.lock import LOCK

ARRAYS = {
    "bytes": np.random.default_rng(0).integers(0, 256, 70_000).astype(np.uint8),
    "floats": np.array([[1.5, -0.0, np.inf], [np.nan, 1e-40, -3.0]], np.float32),
    "key": np.array([0, 2**32 - 1], np.uint32),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
}


def one(value):
    return {"a": np.full(40_000, value, np.int32)}


def names(folder):
    """What lies in a folder, but for the lock, which stays."""
    return sorted(p.name for p in folder.iterdir() if p.name != LOCK)


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path):
    metadata = {"text": "häß", "list": [1, 2.5, None, {"x": True}], "float": 0.1}
    store.save(tmp_path / "deep" / "folder", ARRAYS, metadata)
    arrays, described = store.load(tmp_path / "deep" / "folder")
    tiny.assert_same_bits(arrays, ARRAYS)
    assert described == metadata == store.load_metadata(tmp_path / "deep" / "folder")


def test_a_second_save_replaces_the_first_and_cleans_up(tmp_path):
    for value in (1, 2, 3):
        store.save(tmp_path, one(value), {"value": value})
    assert names(tmp_path) == ["000003"]
    arrays, metadata = store.load(tmp_path)
    assert (arrays["a"] == 3).all() and metadata == {"value": 3}


def test_the_newest_of_two_generations_is_read(tmp_path):
    store.save(tmp_path / "other", one(2), {"value": 2})
    store.save(tmp_path / "here", one(1), {"value": 1})
    (tmp_path / "other" / "000001").rename(tmp_path / "here" / "000002")
    assert store.load_metadata(tmp_path / "here") == {"value": 2}


def test_a_save_that_fails_leaves_the_older_generation(tmp_path, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    store.save(tmp_path, one(1), {"value": 1})

    def full_disk(path, *_args, **_kwargs):
        part = Path(f"{path}.orbax-checkpoint-tmp")
        (part / "state").mkdir(parents=True)
        (part / "state" / "half").write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ocp, "save", full_disk)
        with pytest.raises(OutputError, match="no space left"):
            store.save(tmp_path, one(2), {"value": 2})
    assert names(tmp_path) == ["000001"]
    arrays, metadata = store.load(tmp_path)
    assert (arrays["a"] == 1).all() and metadata == {"value": 1}
    store.save(tmp_path, one(3), {"value": 3})
    assert names(tmp_path) == ["000002"]
    assert store.load_metadata(tmp_path) == {"value": 3}


def test_a_killed_first_save_leaves_nothing_that_counts(tmp_path):
    (tmp_path / "000001.orbax-checkpoint-tmp").mkdir()
    assert not store.exists(tmp_path)
    with pytest.raises(BankError, match="a folder that was saved to"):
        store.load(tmp_path)
    store.save(tmp_path, one(1), {})
    assert (store.load(tmp_path)[0]["a"] == 1).all()


SAVE_FOR_EVER = """
import sys
import numpy as np
from xbm_jax.tasks import store
from xbm_jax.tasks.files import replace_file
for value in range(1, 10_000):
    store.save(sys.argv[1], {"a": np.full(40_000, value, np.int32)}, {"value": value})
"""


def test_a_process_killed_while_it_saves_loses_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)])
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            there = os.listdir(tmp_path)
            if any(n.isdigit() for n in there) and any("tmp" in p.name for p in tmp_path.glob(".xbm-writing/*/*")):
                break  # one generation is whole and the next is being written
        else:
            pytest.fail("no save seen in 120 s")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    arrays, metadata = store.load(tmp_path)
    assert metadata["value"] >= 1
    assert (arrays["a"] == metadata["value"]).all()
    store.save(tmp_path, one(0), {"value": 0})
    assert len(names(tmp_path)) == 1 and store.load_metadata(tmp_path) == {"value": 0}


def flip(path: Path, position: int) -> bytes:
    """Flip the lowest bit of one byte of a file (a digit stays a digit); gives what was there."""
    before = path.read_bytes()
    after = bytearray(before)
    after[position] ^= 1
    path.write_bytes(bytes(after))
    return before


def test_a_flipped_bit_in_array_data_names_the_array(tmp_path):
    store.save(tmp_path, {"bytes": ARRAYS["bytes"], "small": np.ones(1, np.float32)}, {})
    largest = max(tmp_path.rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    size = largest.stat().st_size
    assert size >= 70_000  # random bytes do not compress, so this file is the array
    for position in (size // 4, size // 2, 3 * size // 4):
        before = flip(largest, position)
        with pytest.raises(BankError, match=r"arrays = \['bytes'\].*damaged on disk"):
            store.load(tmp_path)
        largest.write_bytes(before)
    tiny.assert_same_bits(store.load(tmp_path)[0]["bytes"], ARRAYS["bytes"])


@pytest.mark.parametrize("word", ["70131", "int32", "40000", "arrays", "metadata", "sha256"])
def test_a_flipped_bit_in_the_description_is_never_silent(tmp_path, word):
    store.save(tmp_path, one(7), {"value": 70131})
    described = tmp_path / "000001" / "_CHECKPOINT_METADATA"
    position = described.read_bytes().index(word.encode()) + len(word) - 1
    flip(described, position)
    with pytest.raises(BankError, match="000001"):
        store.load(tmp_path)
    with pytest.raises(BankError, match="000001"):
        store.load_metadata(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "truncated", "gone"])
def test_a_damaged_description_is_a_named_error(tmp_path, damage):
    store.save(tmp_path, one(1), {})
    described = tmp_path / "000001" / "_CHECKPOINT_METADATA"
    if damage == "gone":
        described.unlink()
    else:
        described.write_bytes(described.read_bytes()[: 0 if damage == "empty" else 200])
    with pytest.raises(BankError, match=r"000001.*a readable checkpoint"):
        store.load(tmp_path)


def test_an_unwritable_folder_is_named(tmp_path):
    # The tests may run as root, whom permissions do not stop: a file stands where a folder should be.
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OutputError, match="a writable folder") as error:
            store.save(folder, one(1), {})
        assert error.value.value == str(folder)


def test_replace_file_replaces_in_one_step(tmp_path):
    path = tmp_path / "card.json"
    replace_file(path, json.dumps([1]))
    replace_file(path, json.dumps([2]))
    assert json.loads(path.read_text()) == [2]
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]
    with pytest.raises(OutputError, match="a writable file"):
        replace_file(path / "below" / "card.json", "")


@pytest.mark.parametrize("name", ["run [1]", "a*b", "what?"])
def test_a_path_that_orbax_takes_for_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match="a path without"):
        store.save(tmp_path / name, {"a": np.zeros(2)}, {})

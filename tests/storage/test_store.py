"""Arrays on disk: whole or not at all, and never wrong without a word."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import xbm_jax
from tasks import tiny
from xbm_jax.errors import BankError, OutputError
from xbm_jax.storage import store
from xbm_jax.storage.lock import LOCK

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
from xbm_jax.storage import store
for value in range(1, 10_000):
    store.save(sys.argv[1], {"a": np.full(40_000, value, np.int32)}, {"value": value})
"""


def test_a_process_killed_while_it_saves_loses_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)])
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            there = os.listdir(tmp_path)
            if any(n.isdigit() for n in there) and ".xbm-writing" in there:
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


@pytest.mark.parametrize("name", ["run [1]", "a*b", "what?"])
def test_a_path_that_orbax_takes_for_a_pattern_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match="a path without"):
        store.save(tmp_path / name, {"a": np.zeros(2)}, {})


# ---------------------------------------------------------------------------------------------------------------------
# What is not the store's own


def foreign_checkpoint(path: Path) -> None:
    """As another program that uses Orbax writes one."""
    path.mkdir()
    (path / "commit_success.txt").write_text("done")
    (path / "_CHECKPOINT_METADATA").write_text(json.dumps({"item_handlers": {}, "custom_metadata": {"step": 7}}))


def folder_of_files(path: Path) -> None:
    (path / "below").mkdir(parents=True)
    (path / "below" / "weights").write_bytes(b"precious")


def link_to_a_folder(path: Path) -> None:
    folder_of_files(path.parent / "elsewhere" / path.name)
    path.symlink_to(path.parent / "elsewhere" / path.name)


FOREIGN = {
    "a folder": ("runs", folder_of_files),
    "a folder of six digits": ("000001", folder_of_files),
    "one of a later number": ("000007", folder_of_files),
    "a day": ("20240131", folder_of_files),
    "another's checkpoint": ("000002", foreign_checkpoint),
    "another's temporary": ("000003.orbax-checkpoint-tmp", folder_of_files),
    "another's temporary with a time": ("7.orbax-checkpoint-tmp-1700000000", folder_of_files),
    "a file of six digits": ("000004", lambda path: path.write_text("precious")),
    "a link": ("000005", link_to_a_folder),
    "a link to nothing": ("000006", lambda path: path.symlink_to("nowhere")),
    "a file of the name of a probe": (".writable", lambda path: path.write_text("precious")),
    "a lock of another": (".lock", lambda path: path.write_text("pid 7")),
    "a chip of its own": ("chip", lambda path: store.save(path, one(5), {"value": 5})),
}


def content(folder: Path) -> dict[str, bytes | str | None]:
    """Everything under a folder: bytes of files, targets of links, None for folders."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        kind = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[path.relative_to(folder).as_posix()] = kind
    return found


@settings(max_examples=6)
@given(st.sets(st.sampled_from(sorted(FOREIGN))), st.integers(1, 2))
@example(set(FOREIGN), 2)
def test_what_is_not_its_own_stays_and_is_in_nobodys_way(kinds, saves):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in sorted(kinds):
            path, make = FOREIGN[kind]
            make(folder / path)
        before = content(folder)
        assert not store.exists(folder)
        for value in range(saves):
            store.save(folder, one(value), {"value": value})
            assert store.load_metadata(folder) == {"value": value}
        after = content(folder)
        assert before.items() <= after.items()
        new = {path.split("/")[0] for path in after.keys() - before.keys()}
        assert len(new - {LOCK}) == 1  # one generation, however many there were


def test_a_damaged_generation_is_not_provably_its_own_and_stays(tmp_path):
    store.save(tmp_path, one(1), {"value": 1})
    (tmp_path / "000001" / "_CHECKPOINT_METADATA").write_text("xxxx")
    with pytest.raises(BankError, match="000001"):
        store.load(tmp_path)
    for value in (2, 3):
        store.save(tmp_path, one(value), {"value": value})
        assert store.load_metadata(tmp_path) == {"value": value}
    assert names(tmp_path) == ["000001", "000003"]


def test_a_link_to_a_folder_is_written_through(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for value in (1, 2):
        store.save(tmp_path / "link", one(value), {"value": value})
    assert names(tmp_path / "there") == ["000002"]
    assert store.load_metadata(tmp_path / "link") == {"value": 2}


# ---------------------------------------------------------------------------------------------------------------------
# Several at once

SAVE_AND_LOAD = """
import sys
import numpy as np
from xbm_jax.storage import store
for value in range(int(sys.argv[2]), int(sys.argv[2]) + 6):
    store.save(sys.argv[1], {"a": np.full(40_000, value, np.int32)}, {"value": value})
    arrays, metadata = store.load(sys.argv[1])
    assert (arrays["a"] == metadata["value"]).all()
"""


def test_two_processes_save_into_one_folder_while_a_third_reads(tmp_path):
    folder, seen = tmp_path / "new", set()
    writers = [
        subprocess.Popen([sys.executable, "-c", SAVE_AND_LOAD, str(folder), start], stderr=subprocess.PIPE, text=True)
        for start in ("100", "200")
    ]
    while any(writer.poll() is None for writer in writers):
        if store.exists(folder):
            arrays, metadata = store.load(folder)
            assert (arrays["a"] == metadata["value"]).all()
            seen.add(metadata["value"])
        time.sleep(0.02)
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0), ("", 0)]
    assert len(seen) > 1
    assert store.load_metadata(folder)["value"] in (105, 205)
    assert names(folder) == ["000012"]


@pytest.mark.parametrize("name", ["_bytes_of", "custom_of"])
def test_a_reader_that_is_overtaken_reads_what_came_instead(tmp_path, monkeypatch, name):
    """The generation goes away after the reader chose it."""
    store.save(tmp_path, one(1), {"value": 1})
    reads, overtaken = getattr(store, name), []

    def slow(path, *args):
        if not overtaken:
            overtaken.append(path)
            store.save(tmp_path, one(2), {"value": 2})
        return reads(path, *args)

    monkeypatch.setattr(store, name, slow)
    arrays, metadata = store.load(tmp_path)
    assert overtaken and metadata == {"value": 2} and (arrays["a"] == 2).all()


# ---------------------------------------------------------------------------------------------------------------------
# One sentence and no other line

FAIL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from xbm_jax.errors import XbmError
from xbm_jax.storage import store
folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
def made(value):
    return {f"a{i}": np.concatenate([[value], rng.integers(0, 256, 30_000)]).astype(np.uint8) for i in range(30)}
def attempt(act):
    try:
        act()
        print("went through")
    except XbmError as error:
        print(type(error).__name__, error)
for name in ("full", "cut", "flipped", "description", "tree"):
    store.save(folder / name, made(1), {})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
for name in ("full", "new"):
    attempt(lambda: store.save(folder / name, made(2), {}))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.load(folder / "full")[0]["a0"][0] == 1
store.save(folder / "full", made(3), {})
assert store.load(folder / "full")[0]["a0"][0] == 3
def largest(name):
    return max((p for p in (folder / name).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
cut, flipped = largest("cut"), largest("flipped")
cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
flipped.write_bytes(bytes(b ^ (i % 5000 == 100) for i, b in enumerate(flipped.read_bytes())))
(folder / "description/000001/_CHECKPOINT_METADATA").write_bytes(b"xxxx")
(folder / "tree/000001/state/_METADATA").write_bytes(b"xxxx")
for name in ("cut", "flipped", "description"):
    attempt(lambda: store.load(folder / name))
assert store.load(folder / "tree")[0]["a0"][0] == 1  # what Orbax keeps for itself is not looked at
attempt(lambda: store.verified(folder / "tree", 1))
"""


def test_a_full_disk_and_damaged_files_are_one_sentence_each(tmp_path):
    ran = subprocess.run([sys.executable, "-c", FAIL, str(tmp_path)], capture_output=True, text=True, timeout=250)
    assert (ran.stderr, ran.returncode) == ("", 0)
    lines = ran.stdout.splitlines()
    assert len(lines) == 6
    for line, name in zip(lines, ("full", "new"), strict=False):
        wanted = f"OutputError folder = '{tmp_path / name}': a folder that takes what is to be stored (File too large)"
        assert line == wanted
    for line, name in zip(lines[2:], ("cut", "flipped", "description", "tree"), strict=True):
        assert line.startswith(
            (f"BankError folder = '{tmp_path / name}/000001': a readable checkpoint", "BankError arrays")
        )
    assert sorted(p.name for p in (tmp_path / "new").rglob("*")) == [LOCK]


# ---------------------------------------------------------------------------------------------------------------------
# Forms and types


def test_what_is_stored_names_its_form_and_the_version_that_wrote_it(tmp_path):
    store.save(tmp_path, one(1), {"value": 1}, form=3)
    custom = json.loads((tmp_path / "000001" / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    described = json.loads(custom["json"])
    assert (described["format"], described["version"]) == (3, xbm_jax.__version__)
    for read in (store.load, store.load_metadata):
        read(tmp_path, form=3)
        read(tmp_path, form=4)
        with pytest.raises(BankError, match=rf"000001\.format = 3: 1 to 2, .*version {xbm_jax.__version__} wrote this"):
            read(tmp_path, form=2)


TYPES = ["bool", "int8", "uint64", "float16", "float64", "complex64", "bfloat16", "float8_e4m3fn", "int4"]


def test_every_type_comes_back_whole_empty_and_alone(tmp_path):
    dtypes = {n: np.dtype(getattr(ml_dtypes, n, None) or n) for n in TYPES}
    shapes = {"many": (2, 3), "none": (3, 0, 2), "alone": ()}
    arrays: dict[str, np.ndarray] = {"turned": np.arange(6.0).reshape(2, 3).T}
    for name, shape in shapes.items():
        arrays |= {f"{n} {name}": np.ones(shape, dtype) for n, dtype in dtypes.items()}
    store.save(tmp_path, arrays, {})
    tiny.assert_same_bits(store.load(tmp_path)[0], arrays)


@pytest.mark.parametrize("arrays", [{}, {"a": np.zeros((0, 2), np.int8), "b": np.zeros(0)}])
def test_nothing_comes_back_as_nothing(tmp_path, arrays):
    store.save(tmp_path, arrays, {"x": 1})
    got, metadata = store.load(tmp_path)
    tiny.assert_same_bits(got, arrays)
    assert metadata == {"x": 1}


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.array([1.0], ">f4"), ">f4"),
        (np.array(["a"]), "<U1"),
        (np.array([b"a"]), "|S1"),
        (np.array([None]), "object"),
        (np.zeros(2, [("x", np.int8)]), r"\[\('x', 'i1'\)\]"),
    ],
)
def test_a_type_that_has_no_form_on_disk_is_refused(tmp_path, array, name):
    with pytest.raises(BankError, match=rf"arrays\['a'\]\.dtype = .*{name}"):
        store.save(tmp_path / "new", {"b": np.zeros(2), "a": array}, {})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("metadata", [{"a": float("nan")}, {"a": [float("inf")]}, {"a": {1}}])
def test_metadata_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, metadata):
    with pytest.raises(BankError, match=r"metadata = .*JSON-like"):
        store.save(tmp_path / "new", one(1), metadata)
    assert not (tmp_path / "new").exists()


def test_a_copy_in_a_folder_with_brackets_is_read(tmp_path):
    store.save(tmp_path / "plain", one(1), {"value": 1})
    (tmp_path / "plain").rename(tmp_path / "run [1]")
    arrays, metadata = store.load(tmp_path / "run [1]")
    assert (arrays["a"] == 1).all() and metadata == {"value": 1}

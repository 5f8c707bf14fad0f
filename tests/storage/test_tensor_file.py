"""Records in one .safetensors file: other programs read it, and a file that lies is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tasks import tiny
from xbm_jax.errors import BankError, OutputError
from xbm_jax.storage.record import MAX_TEXT, Record
from xbm_jax.storage.tensor_file import TensorFile, write_tensor_file

A = {"half": np.array([1, 2, 3], np.float16), "wide": np.arange(4, dtype=np.float64), "none": np.zeros((2, 0), np.int8)}
B = {"flags": np.array([True, False]), "scalar": np.array(7, np.uint32)}


@pytest.fixture
def file(tmp_path):
    write_tensor_file(
        tmp_path / "f.safetensors", {"a": Record(A, {"x": 1}, 2), "b": Record(B, {})}, {"card": Record({}, {}).text()}
    )
    return tmp_path / "f.safetensors"


def test_what_was_written_is_read_here_and_by_others(file):
    found = TensorFile(file)
    assert sorted(found.keys) == ["a", "b", "card"]
    record, described = found.record("a", 2)
    tiny.assert_same_bits(record.arrays, A)
    assert record.metadata == {"x": 1} and (described.form, record.form) == (2, 2)
    tiny.assert_same_bits(found.record("b", 1)[0].arrays, B)
    tiny.assert_same_bits(
        load_file(file), {f"{k}/{n}": a for k, arrays in (("a", A), ("b", B)) for n, a in arrays.items()}
    )
    for key, form, said in (("c", 2, "with 'c' in it"), ("a", 1, "format = 2")):
        with pytest.raises(BankError, match=said):
            found.record(key, form)


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(BankError, match=r"arrays\['a/x'\]\.dtype = 'complex128'"):
        write_tensor_file(tmp_path / "f.safetensors", {"a": Record({"x": np.zeros(2, np.complex128)}, {})}, {})
    with pytest.raises(BankError, match="records that are described in"):
        write_tensor_file(tmp_path / "f.safetensors", {"a": Record({}, {"x": "y" * MAX_TEXT})}, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a writable file"):
        write_tensor_file(tmp_path / "file" / "f.safetensors", {}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def rewritten(path, change):
    """The file with its header changed, its arrays as they were."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = change(header)
    text = json.dumps(header if text is None else text).encode() if not isinstance(text, bytes) else text
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def update(name, **changes):
    return lambda header: header[name].update(changes)


HOSTILE = {
    "empty": lambda path: path.write_bytes(b""),
    "a length alone": lambda path: path.write_bytes(bytes(8)),
    "a huge header": lambda path: path.write_bytes((2**62).to_bytes(8, "little") + b"{}"),
    "a header beyond the file": lambda path: path.write_bytes((99).to_bytes(8, "little") + b"{}"),
    "no JSON": lambda path: rewritten(path, lambda _: b"xxxx"),
    "deep JSON": lambda path: rewritten(path, lambda _: b"[" * 200_000),
    "another JSON": lambda path: rewritten(path, lambda _: [1]),
    "no metadata": lambda path: rewritten(path, lambda header: header.pop("__metadata__") and None),
    "metadata of numbers": lambda path: rewritten(path, update("__metadata__", a=3)),
    "metadata of another": lambda path: rewritten(path, lambda h: h["__metadata__"].update(a=h["__metadata__"]["b"])),
    "metadata that is none": lambda path: rewritten(path, update("__metadata__", a="{")),
    "a huge shape": lambda path: rewritten(path, update("a/wide", shape=[2**50])),
    "a huge place": lambda path: rewritten(path, update("a/wide", shape=[2**40], data_offsets=[0, 2**43])),
    "a place before the file": lambda path: rewritten(path, update("a/wide", data_offsets=[-32, 0])),
    "a place of floats": lambda path: rewritten(path, update("a/wide", data_offsets=[0.0, 32.0])),
    "one place": lambda path: rewritten(path, update("a/wide", data_offsets=[0])),
    "another type": lambda path: rewritten(path, update("a/wide", dtype="I64")),
    "an unknown type": lambda path: rewritten(path, update("a/wide", dtype="O")),
    "a type of lists": lambda path: rewritten(path, update("a/wide", dtype=[])),
    "arrays of nothing": lambda path: rewritten(path, lambda header: header.update({"a/wide": 3})),
    "a missing array": lambda path: rewritten(path, lambda header: header.pop("a/wide") and None),
    "another's place": lambda path: rewritten(path, update("a/half", data_offsets=[0, 6])),
    "many over each other": lambda path: rewritten(
        path, lambda h: h.update({f"x{i}": {"dtype": "U8", "shape": [40], "data_offsets": [0, 40]} for i in range(9)})
    ),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_file_that_lies_is_refused(file, how):
    HOSTILE[how](file)
    with pytest.raises(BankError) as error:
        TensorFile(file).record("a", 2)
    assert str(file) in str(error.value) or error.value.field in ("arrays", "a")

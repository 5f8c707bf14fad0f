"""A record's text and bytes: what comes back, and what is refused before memory is taken."""

import json

import numpy as np
import pytest

from tasks import tiny
from xbm_jax.errors import BankError
from xbm_jax.storage.record import MAX_TEXT, Record, cut, digest, envelope, opened, parse_json

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "none": np.zeros((0, 4), np.int8),
    "b": np.array([1, 2, 3], np.uint8),
}


def lying(**changes):
    """The envelope of a description whose one array is said to be something else."""
    array = {"sha256": digest(b"\1"), "shape": [1], "dtype": "uint8"} | changes
    return envelope(json.dumps({"format": 1, "layout": 2, "metadata": {}, "arrays": {"a": array}}))


def test_a_record_comes_back():
    record = Record(ARRAYS, {"who": "häß"}, 3)
    described, data = opened("r", envelope(record.text()), 3), record.data()
    assert described.nbytes == data.size == 27 and (described.form, described.layout) == (3, 2)
    assert described.metadata == {"who": "häß"}
    tiny.assert_same_bits(cut("r", described, data), ARRAYS)
    assert data[:4].tobytes() == np.float32(0).tobytes() and data[-3:].tolist() == [1, 2, 3]


def test_a_changed_byte_names_its_array():
    record = Record(ARRAYS, {})
    described, data = opened("r", envelope(record.text()), 1), record.data()
    data[5] ^= 1
    with pytest.raises(BankError, match=r"arrays = \['a'\]"):
        cut("r", described, data)
    with pytest.raises(BankError, match="r = '26 bytes': 27 bytes"):
        cut("r", described, data[:-1])


@pytest.mark.parametrize(
    ("custom", "said"),
    [
        (None, "damaged on disk"),
        ({"json": "{}", "sha256": digest(b"x")}, "damaged on disk"),
        ({"json": 3, "sha256": digest(b"3")}, "damaged on disk"),
        (envelope("[" * 100_000), r"JSON \("),
        (envelope("[1]"), "a description with metadata"),
        (envelope('{"metadata": 3}'), "a description with metadata"),
        (envelope('{"metadata": {}}'), "a description of each array"),
        (envelope('{"metadata": {}, "arrays": []}'), "a description of each array"),
        (envelope('{"metadata": {}, "arrays": {}, "layout": 9}'), "layout = 9: 1 to 2"),
        (envelope('{"metadata": {}, "arrays": {}, "format": 9}'), "format = 9: 1, what"),
        (envelope('{"metadata": {}, "arrays": {}, "format": true}'), "format = True"),
        (envelope('{"metadata": {}, "arrays": {"a": 3}}'), r"arrays\['a'\] = 3: sha256, a shape"),
        (lying(dtype="object"), "whole numbers and a dtype"),
        (lying(dtype="O8"), "whole numbers and a dtype"),
        (lying(dtype=["<f4"]), "whole numbers and a dtype"),
        (lying(shape=[-1]), "whole numbers and a dtype"),
        (lying(shape=[1.5]), "whole numbers and a dtype"),
        (lying(shape=[True]), "whole numbers and a dtype"),
        (lying(shape=3), "whole numbers and a dtype"),
        (lying(shape=[1] * 40), "whole numbers and a dtype"),
        (lying(shape=[2**60]), "whole numbers and a dtype"),
        (lying(sha256=None), "whole numbers and a dtype"),
    ],
)
def test_a_description_that_no_record_has_is_refused(custom, said):
    with pytest.raises(BankError, match=said):
        opened("r", custom, 1)


def test_a_huge_shape_takes_no_memory():
    described = opened("r", lying(shape=[2**40, 2**7]), 1)
    assert described.nbytes == 2**47
    with pytest.raises(BankError, match=f"{2**47} bytes, as its description says"):
        cut("r", described, np.zeros(1, np.uint8))


def test_long_json_is_refused():
    with pytest.raises(BankError, match=f"at most {MAX_TEXT}"):
        parse_json("x", "[" + "0," * (MAX_TEXT // 2) + "0]")

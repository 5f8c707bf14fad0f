from __future__ import annotations

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.examples import ALL_ROWS, FINETUNE, XBM
from xbm_jax.errors import DataError, OutputError
from xbm_jax.report import Row, read_results, write_results
from xbm_jax.storage import files
from xbm_jax.storage.files import replace_file

share = st.floats(0, 1)
amount = st.floats(0, 1e9)
count = st.integers(0, 2**48)
rows = st.builds(
    Row,
    task=st.text(min_size=1),
    method=st.text(min_size=1),
    accuracy=share,
    val_accuracy=share,
    **dict.fromkeys(("mask_bits", "norm_bits", "head_bits", "weight_bits_stored", "cells_written", "rows"), count),
    seconds=amount,
    images_per_second=amount,
    seed=st.integers(),
    technology=st.sampled_from(["", "isaac-32nm"]),
    **dict.fromkeys(("inference_joules", "adaption_joules", "switch_joules"), amount),
)


@given(rows)
def test_row_survives_json(row):
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_row_has_the_fields_of_results_files():
    assert list(XBM.to_json()) == [
        *("task", "method", "accuracy", "val_accuracy", "mask_bits", "norm_bits", "head_bits", "cells_written"),
        *("rows", "seconds", "images_per_second", "seed", "weight_bits_stored"),
        *("technology", "inference_joules", "adaption_joules", "switch_joules"),
    ]


def test_stored_bits_are_all_parts():
    assert XBM.stored_bits == 4_400 + 88_064 + 20_800
    assert FINETUNE.stored_bits == 2_141_568 + 88_064 + 20_800


def test_array_scalars_become_plain_numbers():
    row = dataclasses.replace(XBM, accuracy=jnp.float32(0.5), mask_bits=np.int64(3), seed=np.uint32(9))
    assert json.loads(json.dumps(row.to_json())) == row.to_json()
    assert (type(row.accuracy), type(row.mask_bits), row.seed) == (float, int, 9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", ""),
        ("method", None),
        ("accuracy", 84.7),
        ("accuracy", float("nan")),
        ("val_accuracy", -0.1),
        ("val_accuracy", "good"),
        ("mask_bits", -1),
        ("head_bits", 1.5),
        ("cells_written", float("inf")),
        ("seconds", float("inf")),
        ("images_per_second", -1.0),
        ("seed", "0"),
    ],
)
def test_impossible_values_are_named(field, value):
    with pytest.raises(DataError) as caught:
        dataclasses.replace(XBM, **{field: value})
    assert caught.value.field == f"Row.{field}"
    assert caught.value.value is value


def test_missing_and_unknown_fields_are_listed_together():
    values = XBM.to_json()
    del values["mask_bits"], values["seed"], values["weight_bits_stored"]
    with pytest.raises(DataError, match="missing: mask_bits, seed; unknown: colour"):
        Row.from_json(values | {"colour": "red"})


def test_row_without_weight_bits_keeps_no_weights():
    values = FINETUNE.to_json()
    del values["weight_bits_stored"]
    assert Row.from_json(values).weight_bits_stored == 0


def test_results_round_trip(tmp_path):
    path = tmp_path / "new" / "results.json"
    write_results(path, ALL_ROWS, {"seed": 7, "note": "µ"})
    assert read_results(path) == (ALL_ROWS, {"seed": 7, "note": "µ"})
    assert list(json.loads(path.read_text(encoding="utf-8"))) == ["context", "rows"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"context": {}}', '{"context": 3, "rows": []}', '{"rows": [], "contex']
)
def test_damaged_results_are_named(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"results\.json"):
        read_results(path)


def test_no_results_file_is_named(tmp_path):
    with pytest.raises(DataError, match="FileNotFoundError"):
        read_results(tmp_path / "results.json")


def test_results_with_a_bad_row_name_its_field(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"context": {}, "rows": [XBM.to_json() | {"accuracy": 2}]}))
    with pytest.raises(DataError, match=r"Row\.accuracy"):
        read_results(path)


# ---------------------------------------------------------------------------------------------------------------------
# Writing in one step


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_failing_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch, error):
    path = tmp_path / "results.json"
    write_results(path, [XBM], {})
    before = path.read_bytes()

    def half(path, parts):
        content = b"".join(parts)
        path.write_bytes(content[: len(content) // 2])
        raise error

    monkeypatch.setattr(files, "_write_through", half)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt):
        write_results(path, ALL_ROWS, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, [XBM], {})
    with pytest.raises(ValueError, match="JSON"):
        write_results(path, ALL_ROWS, {"x": float("nan")})
    assert read_results(path) == ([XBM], {})


def test_place_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"results\.json.*writable"):
        write_results(tmp_path / "file" / "results.json", [XBM], {})


def test_folder_in_the_place_of_the_file_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="writable"):
        replace_file(tmp_path, "text")
    assert list(tmp_path.iterdir()) == []

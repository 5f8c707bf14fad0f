"""Files that are there whole or not at all."""

import json
import threading

import numpy as np
import pytest

from xbm_jax.errors import BankError, OutputError
from xbm_jax.storage.files import replace_file, strict_json


def test_replace_file_replaces_in_one_step(tmp_path):
    path = tmp_path / "card.json"
    replace_file(path, json.dumps([1]))
    replace_file(path, json.dumps([2]))
    assert json.loads(path.read_text()) == [2]
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]
    with pytest.raises(OutputError, match="a writable file"):
        replace_file(path / "below" / "card.json", "")


def test_writers_of_one_file_share_no_part(tmp_path):
    path, errors = tmp_path / "card.json", []

    def write(who):
        try:
            for _ in range(50):
                replace_file(path, f"{who}" * 1000)
        except OutputError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(who,)) for who in (1, 2, 3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert errors == []
    assert path.read_text() in {str(who) * 1000 for who in (1, 2, 3)}
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_where_a_link_points_to_is_replaced(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "deep" / "card.json")
    for text in ("1", "2"):  # the first time the link points to nothing
        replace_file(tmp_path / "link.json", text)
        assert (tmp_path / "link.json").is_symlink()
        assert (tmp_path / "deep" / "card.json").read_text() == text


def test_a_folder_in_the_place_of_a_file_is_named_and_stays(tmp_path):
    (tmp_path / "card.json" / "inside").mkdir(parents=True)
    with pytest.raises(OutputError, match="a writable file"):
        replace_file(tmp_path / "card.json", "")
    assert [p.name for p in tmp_path.rglob("*")] == ["card.json", "inside"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}, np.float32(1), {1, 2}])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(BankError, match=r"meta = .*JSON-like data, every number finite"):
        strict_json("meta", value)


def test_what_holds_itself_is_refused():
    data: list = []
    data.append(data)
    with pytest.raises(BankError, match="JSON-like"):
        strict_json("meta", data)

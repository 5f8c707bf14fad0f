"""Sentences from .tsv files: what is read, and what is said when it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbm_jax.data import Tokenizer, calibration_images, load, load_tokenizer
from xbm_jax.errors import DataError, SpecError


def spelled(sentences: list[str]) -> list[list[int]]:
    """1, a token for each word's first letter, 2."""
    return [[1, *(ord(word[0]) % 1000 for word in text.split()), 2] for text in sentences]


TOKENIZER = Tokenizer(spelled, max_length=8)
TOY = "0\tone\n1\ttwo words\n0\tthree words here\n1\tfour\n"


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Write files; gives the source of the first one."""

    def write(**files: str | bytes) -> str:
        for name, text in files.items():
            content = text.encode() if isinstance(text, str) else text
            (tmp_path / f"{name.replace('_', '.')}.tsv").write_bytes(content)
        return f"tsv:{tmp_path / next(iter(files)).replace('_', '.')}.tsv"

    return write


def test_two_files_side_by_side_are_one_task(written: Callable[..., str]) -> None:
    source = written(toy_train=TOY, toy_test="1\tfive\r\n0\tsix of them\r\n\r\n")
    for name in (source, source.removesuffix(".train.tsv")):
        data = load(name, tokenizer=TOKENIZER)
        assert (data.name, data.class_names, data.kind) == ("toy", ("0", "1"), "arrays")
        assert data.y_train.tolist() == [0, 1, 0, 1] and data.y_test.tolist() == [1, 0]
        assert data.x_train["ids"].shape == data.x_train["mask"].shape == (4, 16)
        assert data.x_test["ids"][1, :5].tolist() == [1, ord("s"), ord("o"), ord("t"), 2]
        assert data.x_test["mask"].sum(1).tolist() == [3, 5]
        assert (str(data.x_train["ids"].dtype), str(data.x_train["mask"].dtype)) == ("int32", "bool")


def test_one_file_is_split_by_the_seed(written: Callable[..., str]) -> None:
    source = written(mine="".join(f"{i % 2}\tsentence {i}\n" for i in range(40)))
    splits = [load(source, tokenizer=TOKENIZER, seed=seed) for seed in (0, 0, 1)]
    assert [len(data.y_test) for data in splits] == [8, 8, 8]
    assert all(np.bincount(data.y_test).tolist() == [4, 4] for data in splits)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["10", "2", "2", "10"], ("2", "10"), [1, 0, 0, 1]),
        (["-1", "1", "1", "-1"], ("-1", "1"), [0, 1, 1, 0]),
        (["spam", "ham", "ham", "spam"], ("ham", "spam"), [1, 0, 0, 1]),
    ],
)
def test_labels_are_numbers_or_names(labels: list[str], classes: Any, numbers: list[int], written: Any) -> None:
    text = "".join(f"{label}\tword\n" for label in labels)
    data = load(written(toy_train=text, toy_test=text), tokenizer=TOKENIZER)
    assert data.class_names == classes and data.y_train.tolist() == numbers


def test_long_sentences_are_cut_counted_and_said(written: Callable[..., str]) -> None:
    source = written(toy_train=TOY + "0\t" + "word " * 40 + "\n", toy_test="1\tend\n")
    with pytest.warns(UserWarning, match="1 of 6 sentences were cut to 8 tokens; the longest has 42"):
        data = load(source, tokenizer=TOKENIZER)
    assert data.x_train["ids"][4, :8].tolist() == [1] + [ord("w")] * 6 + [2]  # the end's token is kept
    with pytest.warns(UserWarning, match="cut to 20 tokens"):
        data = load(source, tokenizer=TOKENIZER, max_length=20)
    assert data.x_train["ids"].shape == (5, 24)


def test_lines_that_are_none_can_be_skipped(written: Callable[..., str]) -> None:
    source = written(toy_train="0\tone\n\n1\t\n1\ttwo\n", toy_test=TOY)
    with pytest.warns(UserWarning, match="2 of 4 lines left out: toy.train.tsv, line 2: empty; toy.train.tsv, line 3"):
        assert load(source, tokenizer=TOKENIZER, on_bad="skip").y_train.tolist() == [0, 1]


def test_line_ends_of_unicode_are_part_of_a_sentence(written: Callable[..., str]) -> None:
    data = load(written(toy_train="0\ta\u2028b\n1\tc\x85d\n", toy_test="\ufeff0\te\n"), tokenizer=TOKENIZER)
    assert len(data.y_train) == 2 and data.y_test.tolist() == [0]


def test_another_encoding_is_read_by_name(written: Callable[..., str]) -> None:
    source = written(toy_train="0\tété\n1\ta\n".encode("latin-1"), toy_test="0\té\n".encode("latin-1"))
    data = load(source, tokenizer=TOKENIZER, encoding="latin-1")
    assert data.x_test["ids"][0, 1] == ord("é")


GOOD = {"toy_test": "1\ttwo\n"}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("0\tone\n\n1\ttwo\n", {}, r"toy.train.tsv, line 2: empty': label<TAB>sentence on every line; on_bad='skip'"),
        ("0\tone\n1 two\n", {}, r"line 2: no tab in '1 two'"),
        ("\tone\n1\ttwo\n", {}, "line 1: no label"),
        ("0\t \n1\ttwo\n", {}, "line 1: no sentence"),
        ("x\n" * 5, {}, "line 3: .* and 2 more"),
        ("label\ttext\n0\tone\n1\ttwo\n", {}, r"label 'label' \(toy.train.tsv, line 1\)\": whole numbers on all lines"),
        ("0.5\tone\n1.5\ttwo\n", {}, r"label '0.5' \(toy.train.tsv, line 1\)\": whole numbers, or names"),
        ("0\tone\n0\ttwo\n", {}, "y_train"),
        ("", {}, "no examples"),
        (b"0\t\xe9t\xe9\n1\ta\n", {}, "byte 2 is none of utf-8"),
        ("0\tone\n1\ttwo\n", {"encoding": "utf-99"}, "encoding = 'utf-99': one that Python knows"),
        ("0\tone\n1\ttwo\n", {"tokenizer": None}, "tokenizer = None: the backbone's tokenizer.json"),
        ("0\tone\n1\ttwo\n", {"tokenizer": "none.json"}, "tokenizer = 'none.json': a tokenizer.json"),
        ("0\tone\n1\ttwo\n", {"on_bad": "ignore"}, "on_bad"),
        ("0\tone\n1\ttwo\n", {"stream": True}, "stream = True"),
    ],
)
def test_bad_input_is_named(text: str | bytes, options: dict[str, Any], message: str, written: Any) -> None:
    source = written(toy_train=text, **GOOD)
    given: dict[str, Any] = {"tokenizer": TOKENIZER} | options
    with pytest.raises(DataError, match=message):
        load(source, **given)


def test_bad_sources_are_named(tmp_path: Path, written: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"no such file': a file with label<TAB>sentence on every line, or a.train.tsv"):
        load(f"tsv:{tmp_path / 'a'}", tokenizer=TOKENIZER)
    with pytest.raises(DataError, match=r"None for fashion_mnist; tsv: has sentences"):
        load("fashion_mnist", tokenizer=TOKENIZER)
    with pytest.raises(DataError, match=r"for this file write tsv:"):
        load(written(mine=TOY).removeprefix("tsv:"))


def test_calibration_takes_sentences_of_every_class(written: Callable[..., str]) -> None:
    text = "".join(f"{int(i < 4)}\tsentence {'a' * (i < 4)}\n" for i in range(16))
    found = calibration_images(load(written(toy_train=text, toy_test=TOY), tokenizer=TOKENIZER), 8)
    assert found["ids"].shape == found["mask"].shape == (8, 16)
    assert sorted(found["mask"].sum(1).tolist()) == [3] * 6 + [4] * 2


# ---------------------------------------------------------------------------------------------------------------------
# Tokenizers


@pytest.mark.parametrize(
    ("words", "length"), [(1, 16), (14, 16), (15, 24), (23, 32), (40, 48), (510, 512), (511, 1024)]
)
def test_a_few_lengths_serve_all_sentences(words: int, length: int) -> None:
    found = TOKENIZER.at_most(2000)(["a", "word " * words])
    assert found["ids"].shape == found["mask"].shape == (2, length)
    assert found["mask"].sum(1).tolist() == [3, words + 2]


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ("one", "a list of sentences, not one"),
        ([], "at least one"),
        (["one", " "], r"sentences\[1\]"),
        (["one", None], r"sentences\[1\] = None"),
    ],
)
def test_what_is_no_sentence_is_named(sentences: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TOKENIZER(sentences)


def test_a_sentence_without_tokens_is_named() -> None:
    with pytest.raises(DataError, match=r"sentences\[1\] = 'b': a sentence with at least one token"):
        Tokenizer(lambda texts: [[1], []])(["a", "b"])


@pytest.mark.parametrize("changes", [{"max_length": 1}, {"max_length": 2.5}, {"tail": -1}, {"pad": -1}])
def test_impossible_tokenizers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"Tokenizer.{next(iter(changes))}"):
        Tokenizer(spelled, **changes)


def library(path: Path) -> Path:
    """A small tokenizer.json."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bank", "##s"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    made.enable_truncation(4)
    made.enable_padding(length=4)
    made.save(str(path))
    return path


def test_a_librarys_tokenizer_is_read(tmp_path: Path) -> None:
    """The file's own limits and padding do not count."""
    found = load_tokenizer(library(tmp_path / "tokenizer.json"), max_length=6)
    assert (found.tail, found.pad, found.max_length) == (1, 0, 6)
    assert found(["a banks", "a"])["ids"][:, :6].tolist() == [[2, 4, 5, 6, 3, 0], [2, 4, 3, 0, 0, 0]]
    with pytest.warns(UserWarning, match="1 of 1 sentences were cut to 6 tokens; the longest has 7"):
        assert found(["a a a a bank"])["ids"][0, :7].tolist() == [2, 4, 4, 4, 4, 3, 0]


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(DataError, match=r"a whole tokenizer.json \("):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_the_library_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install 'xbm_jax\[text\]'"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_the_original_librarys_tokens_are_found(shared_data: Callable[[str], Path], oracle: Callable) -> None:
    pytest.importorskip("tokenizers")
    known = oracle("minilm_l6")
    tokenizer = load_tokenizer(shared_data("minilm_l6_tokenizer.json"), max_length=48)
    with pytest.warns(UserWarning, match="1 of 32 sentences were cut to 48 tokens"):
        found = tokenizer([text.decode() for text in known["sentences"]])
    np.testing.assert_array_equal(found["ids"], known["input_ids"])
    np.testing.assert_array_equal(found["mask"], known["attention_mask"].astype(bool))

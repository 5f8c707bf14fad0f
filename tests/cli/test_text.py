"""Sentences on the command line: a task of a .tsv file into a bank, and what it answers to sentences."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli import small
from models.tiny_text import POSITIONS, VOCABULARY, build, text_backbone
from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.cli.sentences import sentences_of
from xbm_jax.data import load_tokenizer
from xbm_jax.errors import DataError
from xbm_jax.models import InputSpec
from xbm_jax.models.registry import _TOKENS, MODELS, _Entry
from xbm_jax.tasks import predict

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "where", "was", "it", "galileo", "rome", "?")
SENTENCES = [f"{('who', 'where')[i % 2]} was {('galileo', 'rome', 'it')[i % 3]} ?" for i in range(40)]


def write_tokenizer(path: Path, words: tuple[str, ...] = WORDS) -> Path:
    """A tokenizer of whole words, as ``tokenizers`` keeps it."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    made.save(str(path))
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: Any) -> Iterator[Path]:
    """A bank with one text task, learned by the command."""
    root = tmp_path_factory.mktemp("text")
    tokens = InputSpec(_TOKENS.structure, _TOKENS.arrays, "mask", (("ids", VOCABULARY),))
    entry = _Entry(lambda num_classes, rngs: build(num_classes), "head", None, None, inputs=tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny-text", entry)  # type: ignore[arg-type]
        write_tokenizer(root / "tokenizer.json")
        content: Any = {path: np.asarray(array) for path, array in text_backbone().arrays.items()}
        np.savez(root / "tiny.npz", **content)
        lines = [f"{('person', 'place')[i % 2]}\t{text}" for i, text in enumerate(SENTENCES)]
        (root / "asked.tsv").write_text("\n".join(lines))
        assert adapt(root, "--tokenizer", root / "tokenizer.json", "--max-length", POSITIONS) == 0
        yield root


def adapt(root: Path, *args: object, task: str = "asked.tsv") -> int:
    fixed = ("--model", "tiny-text", "--weights", root / "tiny.npz", "--bank", root / "bank")
    how = ("--method", "head_only", "--epochs", 2, "--batch-size", 8)
    return small.run("adapt", "--task", f"tsv:{root / task}", *fixed, *how, *args)


def asked(root: Path, capsys: Any, *args: object) -> tuple[int, list[dict[str, str]], str]:
    """Exit code, rows of CSV, standard error."""
    code = small.run("predict", *args, "--bank", root / "bank", "--task", "asked")
    seen = capsys.readouterr()
    return code, list(csv.DictReader(io.StringIO(seen.out))), seen.err


def test_sentences_in_quotes_in_files_and_piped_are_answered(root: Path, capsys: Any, monkeypatch: Any) -> None:
    (root / "more.txt").write_text("where was rome ?\n\nwho was it ?\n")
    (root / "labelled.TSV").write_text("place\twhere was it ?\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("who was who\n"))
    given = ("who was galileo ?", root / "more.txt", root / "labelled.TSV", "-")
    code, rows, err = asked(root, capsys, *given, "--tokenizer", root / "tokenizer.json")
    wanted = ["who was galileo ?", "where was rome ?", "who was it ?", "where was it ?", "who was who"]
    assert code == 1 and [row["sentence"] for row in rows] == wanted
    assert "more.txt, line 2 is empty and is left out" in err
    chip = load_chip(root / "bank" / "chip")
    task = MaskBank.open(root / "bank", chip).get("asked")
    tokenizer = load_tokenizer(root / "tokenizer.json", POSITIONS)
    logits = predict(chip, task, tokenizer(wanted), batch_size=5)
    assert [row["class"] for row in rows] == [task.meta["class_names"][i] for i in logits.argmax(-1)]
    powers = np.exp(logits.astype(np.float64))
    likeliest = (powers / powers.sum(-1, keepdims=True)).max(-1)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], likeliest, atol=1e-4)


def test_the_bank_knows_the_tokenizer_and_refuses_another(root: Path, capsys: Any) -> None:
    tokenizer = load_tokenizer(root / "tokenizer.json", POSITIONS)
    task = MaskBank.open(root / "bank", load_chip(root / "bank" / "chip")).get("asked")
    assert task.meta["tokenizer"] == tokenizer.mark
    assert task.meta["tokenizer"]["name"] == "tokenizer.json" and len(task.meta["tokenizer"]["digest"]) == 64
    other = write_tokenizer(root / "other.json", (*WORDS[:4], "where", "who", *WORDS[6:]))
    code, rows, err = asked(root, capsys, "who was it", "--tokenizer", other)
    assert (code, rows) == (2, []) and f"tokenizer.json ({tokenizer.mark['digest'][:12]})" in err
    code, rows, err = asked(root, capsys, "who was it")
    assert (code, rows) == (2, []) and "--tokenizer = None: the tokenizer that the task was learned with" in err


def test_what_a_file_says_of_lengths_makes_no_other_tokenizer(root: Path) -> None:
    content = json.loads((root / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (root / "cut.json").write_text(json.dumps(content, indent=4))
    digests = {load_tokenizer(root / name).digest for name in ("tokenizer.json", "cut.json")}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("who", "--sheet", "sheet.png"), "--sheet = 'sheet.png': none: tiny-text takes sentences"),
        (("who", "--image-size", "8"), "--image-size = '8': none"),
        (("missing.txt",), "'missing.txt': an existing file of sentences"),
        ((" ",), "sentences = '1, all of them empty': sentences, .txt or .tsv files of them"),
    ],
)
def test_what_sentences_have_not_is_refused(
    args: tuple[str, ...], message: str, root: Path, capsys: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = asked(root, capsys, *args, "--tokenizer", root / "tokenizer.json")
    assert code == 2 and message in err and list(tmp_path.iterdir()) == []


def test_tokens_beyond_the_networks_are_refused_before_anything_is_written(root: Path, capsys: Any) -> None:
    many = (*WORDS, *(f"word{i}" for i in range(VOCABULARY)))
    large = write_tokenizer(root / "large.json", many)
    (root / "rare.tsv").write_text("\n".join(f"{i % 2}\twho was {many[-1] if i == 7 else 'it'} ?" for i in range(20)))
    assert adapt(root, "--tokenizer", large, "--max-length", POSITIONS, task="rare.tsv") == 2
    err = capsys.readouterr().err
    assert f"{len(many) - 1} in example" in err and f"0..{VOCABULARY - 1}: the network has no entry" in err
    assert not (root / "bank" / "tasks" / "rare").exists()


@pytest.mark.slow
def test_a_chip_of_sentences_is_inspected_and_priced(root: Path, capsys: Any) -> None:
    source, tokens = f"tsv:{root / 'asked.tsv'}", ("--tokenizer", root / "tokenizer.json", "--max-length", POSITIONS)
    assert small.run("inspect", root / "bank" / "chip", "--task", source, "--images", 4, *tokens) == 0
    assert "block0/query" in capsys.readouterr().out
    chip = ("cost", root / "bank" / "chip", "--bank", root / "bank", "--tech", "isaac-32nm")
    assert small.run(*chip, "--images", source, *tokens) == 0
    assert "asked" in capsys.readouterr().out


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffone\r\n two \n\n", encoding="utf-8")
    assert sentences_of([str(tmp_path / "a.txt"), "three", " "]) == (
        ["one", "two", "three"],
        ["an argument is empty and is left out"],
    )
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="a file in UTF-8"):
        sentences_of([str(tmp_path / "b.txt")])

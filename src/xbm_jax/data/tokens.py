"""From sentences to what a text backbone takes: token ids and which of them are real, padded to a few lengths.

    ids   int32 [n, tokens], padding behind          mask   bool [n, tokens], true for real tokens

``tokens`` is the smallest of :data:`BUCKETS` that holds the longest sentence of a call, so that whatever the sentences
are only a few programs are compiled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from xbm_jax.crossbar.validate import check_int
from xbm_jax.errors import DataError, warn
from xbm_jax.models.weights.files import HUB, downloaded
from xbm_jax.paths import as_path

__all__ = ["BUCKETS", "Tokenizer", "load_tokenizer"]

BUCKETS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Lengths that sentences are padded to; beyond the last one, multiples of it."""


@dataclass(frozen=True)
class Tokenizer:
    """Sentences to padded token ids: ``tokenizer(["a sentence"])`` is ``{"ids": ..., "mask": ...}``.

    Args:
        encode: sentences to a list of token ids each, at full length, with what the model wants before and behind.
        max_length: the most tokens; longer sentences are cut. What a model takes at most is for you to say: 512 for
            BERT.
        tail: tokens at the end that a cut keeps (the separator).
        pad: id of padding.
        name: where it came from.
        digest: SHA-256 of what decides its ids; ``None`` for a function of your own, which cannot be told from others.

    Raises:
        SpecError: lengths or ids that are no whole numbers in their range.
    """

    encode: Callable[[list[str]], list[list[int]]]
    max_length: int = 512
    tail: int = 1
    pad: int = 0
    name: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        check_int("Tokenizer.tail", self.tail, 0, 2**20)
        check_int("Tokenizer.max_length", self.max_length, self.tail + 1, 2**20)
        check_int("Tokenizer.pad", self.pad, 0, 2**31 - 1)

    @property
    def mark(self) -> dict[str, Any]:
        """What a task remembers of its tokenizer, JSON-like."""
        return {"name": self.name, "digest": self.digest, "max_length": self.max_length}

    def check(self, mark: Mapping[str, Any] | None) -> None:
        """Raise DataError unless this is the tokenizer of a task, ``task.meta.get("tokenizer")``, as far as known."""
        known = None if mark is None else mark.get("digest")
        if known is not None and self.digest is not None and known != self.digest:
            allowed = f"{(mark or {}).get('name')} ({known[:12]}), the tokenizer that the task was learned with"
            raise DataError("tokenizer", f"{self.name} ({self.digest[:12]})", allowed)

    def at_most(self, max_length: int) -> Tokenizer:
        """The same for sentences of so many tokens."""
        return replace(self, max_length=max_length)

    def __call__(self, sentences: Sequence[str]) -> dict[str, np.ndarray]:
        """``{"ids": int32 [n, tokens], "mask": bool [n, tokens]}``; says how many sentences it cut.

        Raises:
            DataError: no sentence, what is none, or one without a token.
        """
        ids = self.tokens(sentences)
        return self.padded(ids, bucket(max(map(len, ids))))

    def tokens(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token ids of each sentence, cut to ``max_length``."""
        if isinstance(sentences, str):
            raise DataError("sentences", sentences, "a list of sentences, not one")
        sentences = list(sentences)
        if not sentences:
            raise DataError("sentences", "none", "at least one sentence")
        for number, sentence in enumerate(sentences):
            if not isinstance(sentence, str) or not sentence.strip():
                raise DataError(f"sentences[{number}]", sentence, "text that is not empty")
        found = self.encode(sentences)
        empty = next((number for number, ids in enumerate(found) if not ids), None)
        if empty is not None:
            raise DataError(f"sentences[{empty}]", sentences[empty], "a sentence with at least one token")
        long = sum(len(ids) > self.max_length for ids in found)
        if long:
            longest = max(map(len, found))
            warn(f"{long} of {len(found)} sentences were cut to {self.max_length} tokens; the longest has {longest}")
        return [self._cut(ids) for ids in found]

    def padded(self, ids: Sequence[Sequence[int]], length: int) -> dict[str, np.ndarray]:
        """Token ids side by side, filled up to ``length``."""
        made = {"ids": np.full((len(ids), length), self.pad, np.int32), "mask": np.zeros((len(ids), length), np.bool_)}
        for row, own in enumerate(ids):
            made["ids"][row, : len(own)] = own
            made["mask"][row, : len(own)] = True
        return made

    def _cut(self, ids: list[int]) -> list[int]:
        if len(ids) <= self.max_length:
            return ids
        return ids[: self.max_length - self.tail] + ids[len(ids) - self.tail :]


def bucket(length: int) -> int:
    """The length that sentences of at most ``length`` tokens are padded to."""
    last = BUCKETS[-1]
    return next((size for size in BUCKETS if size >= length), -(-length // last) * last)


def load_tokenizer(source: str | Path, max_length: int = 512) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json``, by the library ``tokenizers`` (``pip install 'xbm_jax[text]'``).

    Args:
        source: the file, or ``hf://owner/repository`` (or ``.../file``), which is downloaded once.
        max_length: the most tokens a sentence may have; what the file says of lengths and padding does not count.

    Raises:
        DataError: no such file, one that holds no tokenizer, or ``tokenizers`` is not installed. WeightsError: what
            cannot be downloaded.
    """
    path = downloaded(str(source), "tokenizer.json") if str(source).startswith(HUB) else as_path(source)
    if not path.is_file():
        raise DataError("tokenizer", str(source), "a tokenizer.json, or hf://owner/repository")
    try:
        from tokenizers import Tokenizer as Library  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        allowed = "`pip install 'xbm_jax[text]'`, or a xbm_jax.data.Tokenizer of your own"
        raise DataError("tokenizer", str(source), allowed) from error
    try:
        text = path.read_text(encoding="utf-8")
        library, digest = Library.from_str(text), _digest(text)
    except Exception as error:  # the library raises nothing more special
        raise DataError("tokenizer", str(source), f"a whole tokenizer.json ({error})") from error
    library.no_truncation()
    library.no_padding()
    special = library.encode("a").special_tokens_mask
    tail = sum(1 for _ in takewhile(bool, reversed(special)))

    def encode(sentences: list[str]) -> list[list[int]]:
        return [found.ids for found in library.encode_batch(sentences)]

    name = str(source) if str(source).startswith(HUB) else path.name
    return Tokenizer(encode, max_length, tail, _padding_id(library), name, digest)


def _digest(text: str) -> str:
    """Of a ``tokenizer.json``'s content, but for what it says of lengths: those are :class:`Tokenizer`'s."""
    content = {key: part for key, part in json.loads(text).items() if key not in ("version", "truncation", "padding")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _padding_id(library: Any) -> int:
    """Of the token that says so; padding is masked, so that any other id would do."""
    found = (library.token_to_id(name) for name in ("[PAD]", "<pad>"))
    return next((number for number in found if number is not None), 0)

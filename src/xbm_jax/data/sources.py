"""Where a task comes from, as one string: a bundled name, or a kind (``npz:``, ``folder:``, ...) and what follows."""

from __future__ import annotations

from pathlib import Path

from xbm_jax.data.dataset import Dataset
from xbm_jax.data.decode import check_on_bad
from xbm_jax.data.folder import load_folder
from xbm_jax.data.images import check_size
from xbm_jax.data.npz import load_npz
from xbm_jax.data.records import BUNDLED, load_bundled, load_tfds
from xbm_jax.data.tokens import Tokenizer, load_tokenizer
from xbm_jax.data.tsv import load_tsv
from xbm_jax.errors import DataError
from xbm_jax.paths import as_path, cache_folder

__all__ = ["BUNDLED", "load"]


def load(
    source: str | Path,
    *,
    seed: int = 0,
    image_size: int | None = None,
    data_dir: str | Path | None = None,
    on_bad: str = "raise",
    stream: bool = False,
    cache: str | Path | None = None,
    tokenizer: Tokenizer | str | Path | None = None,
    max_length: int | None = None,
    encoding: str = "utf-8",
) -> Dataset:
    """Load a task.

    Args:
      source: ``fashion_mnist``, ``quickdraw`` or ``omniglot`` (they ship with the package), ``npz:PATH`` (pixels or
        encoded images, see :mod:`xbm_jax.data.npz`), ``folder:DIR``, ``tfds:NAME[/config][:version]`` or ``tsv:PATH``
        (labels and sentences, see :mod:`xbm_jax.data.tsv`).
      seed: of the train/test split, where the source has none of its own.
      image_size: pixels a side to resize to (bilinear); None keeps the images as they are.
      data_dir: where TFDS looks for prepared sets; ``tfds:`` alone.
      on_bad: "raise" or "skip" for images that cannot be decoded (``folder:`` and ``npz:``), lines that are no examples
        (``tsv:``).
      stream: leave the images on disk and read them when they are asked for; ``folder:`` and ``tfds:``.
      cache: where a streamed folder's images are kept once they are decoded; None: in the user's cache folder.
      tokenizer: what makes token ids of sentences, or where :func:`xbm_jax.data.load_tokenizer` finds it; ``tsv:``.
      max_length: the most tokens of a sentence, those beyond are cut; None: as many as the tokenizer takes.
      encoding: of a ``tsv:`` file.

    Raises:
      DataError: names what is wrong with the source and what is allowed.
    """
    check_size(image_size)
    check_on_bad(on_bad)
    source = str(source)
    kind, _, rest = source.partition(":")
    if stream and kind not in ("folder", "tfds"):
        raise DataError("stream", stream, f"False for {source}; folder: and tfds: can be streamed")
    for name, given in (("tokenizer", tokenizer), ("max_length", max_length)):
        if given is not None and kind != "tsv":
            raise DataError(name, str(given), f"None for {source}; tsv: has sentences")
    if source in BUNDLED:
        return load_bundled(source, image_size)
    if kind == "npz" and rest:
        return load_npz(as_path(rest), image_size, on_bad)
    if kind == "folder" and rest:
        place = (cache_folder("images") if cache is None else as_path(cache)) if stream else None
        return load_folder(as_path(rest), seed=seed, image_size=image_size, on_bad=on_bad, cache=place)
    if kind == "tfds" and rest:
        return load_tfds(rest, seed=seed, image_size=image_size, data_dir=data_dir, stream=stream)
    if kind == "tsv" and rest:
        made = _tokenizer(source, tokenizer, max_length)
        return load_tsv(as_path(rest), made, seed=seed, encoding=encoding, on_bad=on_bad)
    kinds = f"{', '.join(BUNDLED)}, npz:PATH, folder:DIR, tsv:PATH or tfds:NAME"
    raise DataError("source", source, kinds + _hint(source))


def _tokenizer(source: str, given: Tokenizer | str | Path | None, max_length: int | None) -> Tokenizer:
    """The tokenizer of a source of sentences."""
    if given is None:
        allowed = f"the backbone's tokenizer.json, or hf://owner/repository, for the sentences of {source}"
        raise DataError("tokenizer", None, allowed)
    made = given if isinstance(given, Tokenizer) else load_tokenizer(given)
    return made if max_length is None else made.at_most(max_length)


def _hint(source: str) -> str:
    path = as_path(source or ".")
    if path.is_dir():
        return f"; for this folder write folder:{source}"
    kind = "tsv" if path.suffix == ".tsv" else "npz"
    return f"; for this file write {kind}:{source}" if path.is_file() else ""

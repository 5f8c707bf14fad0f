"""Tasks stored as TFDS array_record folders: those that ship with the package and those that a user has prepared.

TFDS reads this format without TensorFlow. Images are taken out encoded and decoded here, since TFDS' own decoder asks
for OpenCV on every start. A set is read once into one array: at 28 pixels this costs 60 us an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xbm_jax.data.dataset import Dataset
from xbm_jax.data.decode import decode_all
from xbm_jax.data.images import check_size, resize, stack
from xbm_jax.data.split import split_test
from xbm_jax.data.streamed import Streamed
from xbm_jax.errors import DataError
from xbm_jax.examples import chosen
from xbm_jax.paths import as_path

__all__ = ["BUNDLED", "load_bundled", "load_tfds"]

BUNDLED = ("fashion_mnist", "quickdraw", "omniglot")

_ASSETS = Path(__file__).parent.parent / "assets" / "datasets"
_VERSION = "1.0.0"
_TEST_FRACTION = 0.2
_CHUNK = 1024


def load_bundled(name: str, image_size: int | None = None) -> Dataset:
    """Read a task that ships with the package; raises DataError if the installation lacks its files."""
    import tensorflow_datasets as tfds

    folder = _ASSETS / name / _VERSION
    if not folder.is_dir():
        raise DataError("source", name, f"a whole installation; {name}/{_VERSION} is missing, install xbm_jax anew")
    return read_builder(tfds.builder_from_directory(folder), image_size=image_size)


def load_tfds(
    name: str,
    *,
    seed: int = 0,
    image_size: int | None = None,
    data_dir: str | Path | None = None,
    stream: bool = False,
) -> Dataset:
    """Read a prepared TFDS image-classification set ``NAME[/config][:version]`` from ``data_dir`` (default: TFDS' own).

    The test images are the split ``test``, else ``validation``, else a seeded stratified fifth of ``train``. Nothing is
    downloaded or prepared.

    Raises:
      DataError: unknown to TFDS, not prepared, not stored as array_record, or no image classification.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder, registered

    check_size(image_size)
    where = str(as_path(data_dir)) if data_dir is not None else None
    try:
        # Files alone: `tfds.builder` would import the generation code and look for the set on the network.
        builder = read_only_builder.builder_from_files(name, data_dir=where)
    except registered.DatasetNotFoundError as error:
        raise DataError("source", f"tfds:{name}", _how_to_prepare(tfds, name, where)) from error
    except ValueError as error:
        raise DataError("source", f"tfds:{name}", f"NAME[/config][:version]; {str(error).splitlines()[0]}") from error
    return read_builder(builder, seed=seed, image_size=image_size, stream=stream)


def read_builder(builder: Any, *, seed: int = 0, image_size: int | None = None, stream: bool = False) -> Dataset:
    """Read a ``tfds.core.DatasetBuilder`` of one image and one class label per example into a Dataset."""
    image_key, label_key = _keys(builder)
    splits = builder.info.splits
    if "train" not in splits:
        raise DataError(f"tfds:{builder.info.full_name} splits", sorted(splits), "a set with a split called train")
    read_split = _streamed_split if stream else _read_split
    x, y = read_split(builder, "train", image_key, label_key, image_size)
    test_split = next((split for split in ("test", "validation") if split in splits), None)
    if test_split is None:
        train, test = split_test(y, _TEST_FRACTION, seed)
        x_test, y_test, x, y = chosen(x, test), y[test], chosen(x, train), y[train]
    else:
        x_test, y_test = read_split(builder, test_split, image_key, label_key, image_size)
    metadata = builder.info.metadata or {}
    return Dataset(
        name=builder.info.name,
        x_train=x,
        y_train=y,
        x_test=x_test,
        y_test=y_test,
        class_names=tuple(builder.info.features[label_key].names),
        licence=metadata.get("licence") or builder.info.redistribution_info.license or "unknown",
        attribution=metadata.get("attribution") or builder.info.citation or "unknown",
    )


def _keys(builder: Any) -> tuple[str, str]:
    """Names of the one image and the one label of an example."""
    import tensorflow_datasets as tfds

    features: Any = builder.info.features
    images = [key for key, feature in features.items() if _is_image(feature)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        value = f"images {images}, labels {labels}"
        raise DataError(f"tfds:{builder.info.full_name} features", value, "one image and one ClassLabel per example")
    return images[0], labels[0]


def _is_image(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Image):
        return True
    # By exact type: the sub-classes of Tensor are boxes, audio and the like.
    shape: Any = feature.shape if type(feature) is tfds.features.Tensor else ()
    return len(shape) == 3


def _read_split(
    builder: Any, split: str, image_key: str, label_key: str, size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """All images ``[n, H, W, C]`` and labels int64 ``[n]`` of one split, in the order of the files."""
    channels, decoders = _kind(builder, image_key)
    encoded, field, images, labels = bool(decoders), f"tfds:{builder.info.full_name}", [], []
    for block in _blocks(builder, split, decoders):
        found = [example[image_key] for example in block]
        names = [f"{split} image {len(images) + i}" for i in range(len(found))]
        images += decode_all(found, names, size, field, "raise", channels)[1] if encoded else map(np.asarray, found)
        labels += [example[label_key] for example in block]
    stacked = stack(images, field)  # never empty: TFDS writes no empty split
    if size is not None and not encoded:
        stacked = resize(stacked, size)
    return stacked, np.asarray(labels, np.int64)


def _streamed_split(
    builder: Any, split: str, image_key: str, label_key: str, size: int | None
) -> tuple[Streamed, np.ndarray]:
    """The images of one split, which stay on disk, and all labels, for which every record is read once."""
    field, (channels, decoders) = f"tfds:{builder.info.full_name}", _kind(builder, image_key)
    height, width = (size, size) if size is not None else builder.info.features[image_key].shape[:2]
    if height is None or width is None:
        raise DataError("image_size", size, f"a size: the images of {field} have several, and are read one by one")
    source = _source(builder, split, decoders)

    def read(rows: np.ndarray) -> np.ndarray:
        found = [example[image_key] for example in source.__getitems__([int(row) for row in rows])]
        if decoders:
            names = [f"{split} image {row}" for row in rows]
            return np.stack(decode_all(found, names, size, field, "raise", channels)[1])
        images = np.stack([np.asarray(image) for image in found])
        return images if size is None else resize(images, size)

    labels = [example[label_key] for block in _blocks(builder, split, decoders) for example in block]
    known = f"{field} {split} {builder.info.splits[split].num_bytes} {size}"
    shape = (int(height), int(width), channels)
    return Streamed(read, np.arange(len(labels)), shape, known), np.asarray(labels, np.int64)


def _kind(builder: Any, image_key: str) -> tuple[int, dict[str, Any]]:
    """Channels of the images, and decoders that leave them encoded, where they are."""
    import tensorflow_datasets as tfds

    feature: Any = builder.info.features[image_key]
    encoded = isinstance(feature, tfds.features.Image)
    return 1 if feature.shape[-1] == 1 else 3, {image_key: tfds.decode.SkipDecoding()} if encoded else {}


def _blocks(builder: Any, split: str, decoders: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The examples of a split, a thousand at a time."""
    source = _source(builder, split, decoders)
    for start in range(0, len(source), _CHUNK):
        yield source.__getitems__(list(range(start, min(start + _CHUNK, len(source)))))


def _source(builder: Any, split: str, decoders: dict[str, Any]) -> Any:
    """A split's examples at random."""
    try:
        return builder.as_data_source(split=split, decoders=decoders or None)
    except NotImplementedError as error:  # TFDS: the set's files allow no random access
        allowed = "array_record files; prepare it again with `tfds build --file_format=array_record`"
        raise DataError(f"tfds:{builder.info.full_name}", str(builder.info.file_format), allowed) from error


def _how_to_prepare(tfds: Any, name: str, data_dir: str | None) -> str:
    plain = name.split(":")[0].split("/")[0]
    where = data_dir or str(tfds.core.constants.DATA_DIR)
    if plain not in tfds.list_builders(with_community_datasets=False):
        return f"a set that is prepared under {where} (NAME/VERSION/features.json) or a name that TFDS knows"
    command = f"tfds build {name.split(':')[0]} --file_format=array_record --data_dir={where}"
    return f"a prepared set; prepare it once with `pip install 'xbm_jax[tf]'` and `{command}`"

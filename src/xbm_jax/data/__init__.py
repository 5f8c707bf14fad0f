"""Images and labels: validated datasets, their sources, splits and batches.

Everything here is NumPy on the host; TFDS is imported lazily, inside functions, and nowhere else in the package.
"""

from xbm_jax.data.augment import Augment, made_ahead
from xbm_jax.data.calibration import calibration_images
from xbm_jax.data.copies import near_copies
from xbm_jax.data.dataset import Dataset
from xbm_jax.data.images import center_crop, resize, to_rgb
from xbm_jax.data.published import PUBLISHED_SETS, prepare_published
from xbm_jax.data.sources import BUNDLED, load
from xbm_jax.data.split import epoch_batches, eval_batches, split_test, split_validation, stratified_sample
from xbm_jax.data.streamed import Streamed, each
from xbm_jax.data.tokens import Tokenizer, load_tokenizer

__all__ = [
    "BUNDLED",
    "PUBLISHED_SETS",
    "Augment",
    "Dataset",
    "Streamed",
    "Tokenizer",
    "calibration_images",
    "center_crop",
    "each",
    "epoch_batches",
    "eval_batches",
    "load",
    "load_tokenizer",
    "made_ahead",
    "near_copies",
    "prepare_published",
    "resize",
    "split_test",
    "split_validation",
    "stratified_sample",
    "to_rgb",
]

"""Images and labels: validated datasets, their sources, splits and batches.

Everything here is NumPy on the host; TFDS is imported lazily, inside functions, and nowhere else in the package.
"""

from xbm_jax.data.dataset import Dataset
from xbm_jax.data.images import resize, to_rgb
from xbm_jax.data.sources import BUNDLED, load
from xbm_jax.data.split import epoch_batches, eval_batches, split_validation, stratified_sample

__all__ = [
    "BUNDLED",
    "Dataset",
    "epoch_batches",
    "eval_batches",
    "load",
    "resize",
    "split_validation",
    "stratified_sample",
    "to_rgb",
]

"""Write the bundled weights and what is measured on CIFAR-10 training images with them.

    python tools/build_weights.py --weights cifar10_resnet20.npz --images cifar10.npz --out src/xbm_jax/assets/weights

``--weights``: arrays by path, float32. ``--images``: an .npz with ``x_train`` uint8 [n, 32, 32, 3]; its first 512
images are used. Kernels are stored as float16 (11 bits, against the 8 that a chip keeps), norms as float32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from xbm_jax.crossbar import CrossbarSpec
from xbm_jax.crossbar.primitives.quantise import input_code_limits
from xbm_jax.models import Chip, calibrate, load_backbone, program
from xbm_jax.models.chip import calibration_key

IMAGES = 512


def compact(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Kernels as float16, all else as it is."""
    return {p: a.astype(np.float16) if p.endswith("/kernel") else a.astype(np.float32) for p, a in arrays.items()}


def measurements(chip: Chip, spec: CrossbarSpec) -> dict:
    """Input peaks and converter ranges of a calibrated chip, as JSON-like data."""
    peaks, ranges = {}, {}
    for path, tiles in chip.tiles.items():
        top = input_code_limits(spec.input_bits, tiles.plan.signed_inputs)[1]
        peaks[path] = float(tiles.input_scale) * top
        lsb, low = float(tiles.adc.lsb[0, 0, 0, 0]), float(tiles.adc.min_code[0, 0, 0, 0])
        ranges[path] = (lsb * low, lsb * (low + 2**spec.adc.bits - 1))
    return {
        "source": f"the first {IMAGES} CIFAR-10 training images of the file, an ideal chip",
        "spec": calibration_key(spec),
        "input_peak": peaks,
        "signed": sorted(p for p, t in chip.tiles.items() if t.plan.signed_inputs),
        "adc": ranges,
    }


def main() -> None:
    """Read, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("weights", "images", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    with np.load(args.weights) as archive:
        arrays = compact({name: archive[name] for name in archive.files})
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / "cifar10_resnet20.npz", **arrays)
    with np.load(args.images) as archive:
        images = archive["x_train"][:IMAGES]
    spec = CrossbarSpec()
    chip = calibrate(program(load_backbone("cifar-resnet20", arrays), spec, jax.random.key(0)), images)
    text = json.dumps(measurements(chip, spec), indent=1) + "\n"
    (args.out / "cifar10_resnet20.json").write_text(text)


if __name__ == "__main__":
    main()

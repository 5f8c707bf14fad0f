"""What every registered backbone takes of a chip: a table of sizes, of random weights that are never drawn.

Command:   python -m experiments.zoo
Hardware:  one CPU core. Networks are traced, not computed.
Time:      about a minute.
Writes:    docs/tables/zoo.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Plan, spec_by_name
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.hardware.memory import layer_arrays
from xbm_jax.models import MODELS, Network, named_network
from xbm_jax.models.inputs import call
from xbm_jax.models.structure import stand_in

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tables" / "zoo.md"
SPEC = spec_by_name("verified")

SOURCE_CLASSES = {"cifar-resnet20": 10, "cifar-resnet56": 10, "minilm-l6": None, "DINO": None}
"""Outputs of the source task's head, ``None`` of weights without one; ImageNet's 1,000 for others."""

VARIANTS = {"DeiT": ("vit-s16", "deit"), "DINO": ("vit-s16", "dino")}
"""Other weights of a registered backbone, with their own preprocessing: ``load_backbone(..., preprocess=)``."""

CHECKED = {
    "cifar-resnet20": "CIFAR-10: 91.35 %; ships",
    "cifar-resnet56": "CIFAR-10: 93.70 %",
    "mobilenet-v2": "ten classes of Imagenette: 92.8 %",
    "resnet50-v1": "ten classes of Imagenette: 94.0 %",
    "minilm-l6": "features of 32 sentences",
}
"""Pretrained weights whose accuracy was measured here (README); of others the library's logits, with random weights."""


class Row(NamedTuple):
    """One backbone, its head left out of all but the parameters.

    Attributes:
        parameters: with the head of the source task, if its weights have one.
        digital: weights that stay digital: of more than one axis, outside of layers on arrays.
        columns: columns of all kernels, N.
        mask_bits: a bit for each column of each row tile.
        reads: reads of columns for one example, all layers together: one per output pixel or token.
        macs: multiply-adds of one example on arrays.
    """

    name: str
    parameters: int
    on_arrays: int
    digital: int
    columns: int
    mask_bits: int
    arrays: int
    reads: int
    macs: int
    checked: str


def row(name: str) -> Row:
    """The row of a registered backbone, or of one of VARIANTS."""
    model, preprocess = VARIANTS.get(name, (name, None))
    classes = SOURCE_CLASSES.get(name, 1000)
    network = named_network(model, classes or 1, preprocess)
    paths = [path for path in network.kernels if path != network.head]
    plans = {p: Plan(network.kernel_shape(p), SPEC, network.forms[p].conv, True, "") for p in paths}
    reads = _reads(network, paths)
    kernels = {f"{path}/kernel" for path in network.kernels}
    own = {path: leaf for path, leaf in network.leaves.items() if path not in kernels and not leaf.random}
    biases = {f"{path}/bias" for path in network.kernels}
    head = 0 if classes else sum(math.prod(network.shapes[f"{network.head}/{name}"]) for name in ("kernel", "bias"))
    return Row(
        f"`{name}`" if preprocess is None else f"{name}: `{model}`, `preprocess={preprocess!r}`".replace("'", '"'),
        network.num_parameters - head,
        sum(math.prod(plan.kernel_shape) for plan in plans.values()),
        sum(math.prod(leaf.shape) for path, leaf in own.items() if len(leaf.shape) > 1 and path not in biases),
        sum(plan.columns for plan in plans.values()),
        sum(plan.row_tiles * plan.columns for plan in plans.values()),
        sum(layer_arrays(plan) for plan in plans.values()),
        sum(reads.values()),
        sum(reads[path] * plan.rows * plan.columns for path, plan in plans.items()),
        CHECKED.get(name, "logits"),
    )


def _reads(network: Network, paths: list[str]) -> dict[str, int]:
    """Reads of each layer's columns for one example; the module is traced with abstract arrays."""
    found = dict.fromkeys(paths, 0)

    def run(inputs: Any, arrays: Any) -> None:
        module = network.module(arrays)
        module.eval()

        def of(path: str) -> Any:
            form, shape = network.forms[path], network.kernel_shape(path)

            def read(x: jax.Array) -> jax.Array:
                y = product(x, jnp.zeros(shape, x.dtype), form.conv)
                found[path] += math.prod(y.shape[:-1])
                return y

            return lambda _, *args, **kwargs: form.answer(read, args[0] if args else next(iter(kwargs.values())), None)

        stand_in(module, {path: of(path) for path in paths})
        call(module, network.prepared(inputs))

    if network.inputs is not None:
        inputs = network.inputs.batch(1)
    else:
        assert network.preprocess is not None and network.image_size is not None
        shape = (1, network.image_size, network.image_size, len(network.preprocess.mean))
        inputs = jax.ShapeDtypeStruct(shape, jnp.uint8)
    arrays = {p: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for p, leaf in network.leaves.items() if not leaf.random}
    jax.eval_shape(run, inputs, arrays)
    return found


def table(rows: Iterable[Row]) -> str:
    """The page, in Markdown."""
    heads = ("backbone", "parameters", "on arrays", "digital", "columns", "XBM bits", "line bits", "arrays")
    heads += ("reads", "multiply-adds, 10^6", "weights checked")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for r in rows:
        numbers = (r.parameters, r.on_arrays, r.digital, r.columns, r.mask_bits, 2 * r.mask_bits, r.arrays, r.reads)
        lines.append(
            f"| {r.name} | " + " | ".join(f"{n:,}" for n in numbers) + f" | {r.macs / 1e6:,.1f} | {r.checked} |"
        )
    return (
        "# What the registered backbones take of a chip\n\n"
        f"`python -m experiments.zoo`, arrays of {SPEC.rows} rows and {SPEC.cols} bit lines, as `verified` has them. "
        "The head stays digital and is left out of all but the parameters (of weights that come without one, of these "
        "too). Reads and multiply-adds are those of one example, all layers together. «logits»: the library's own "
        "model and ours agree with random weights.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    PAGE.write_text(table([row(name) for name in (*MODELS, *VARIANTS)]), encoding="utf-8")

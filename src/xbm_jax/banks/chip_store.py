"""A chip on disk: cells, scales, ranges and norms by Orbax; what is static beside them as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import AdcRange, CrossbarSpec, Lines, Mismatch, Plan, Tiles
from xbm_jax.errors import BankError, ModelError, XbmError
from xbm_jax.models import MODELS, Chip, Network, Preprocess, named_network
from xbm_jax.storage import codec, store
from xbm_jax.storage.record import Record

__all__ = ["CHIP_FORM", "chip_of", "chip_record", "load_chip", "save_chip"]

CHIP_FORM = 2  # 1: each array on its own

_CELLS = ("levels", "programmed", "conductance", "effective", "curvature", "read_variance", "writes", "key_data")
_SCALES = ("weight_scale", "input_scale", "drift_factor")
_OPTIONAL = ("curvature", "read_variance", "writes", "input_scale", "drift_factor")
_ADC = ("lsb", "min_code", "offset")
_MISMATCH = ("gain", "offset_lsb")
_LINES = ("effective", "variance", "curvature")


def save_chip(chip: Chip, folder: str | Path) -> None:
    """Save a chip; one that is there already is replaced once the new one is whole. Whatever else is there stays."""
    record = chip_record(chip)
    store.save(folder, record.arrays, record.metadata, form=CHIP_FORM)


def chip_record(chip: Chip) -> Record:
    """A chip as named arrays and JSON.

    Raises:
        BankError: a spec that cannot be stored.
    """
    arrays: dict[str, Any] = {}
    for path, tiles in chip.tiles.items():
        arrays |= {f"tiles/{path}/{name}": getattr(tiles, name) for name in _CELLS + _SCALES}
        arrays |= {f"tiles/{path}/adc_{name}": getattr(tiles.adc, name, None) for name in _ADC}
        arrays |= {f"tiles/{path}/mismatch_{name}": getattr(tiles.mismatch, name, None) for name in _MISMATCH}
        arrays |= {f"tiles/{path}/lines_{name}": getattr(tiles.lines, name, None) for name in _LINES}
    arrays |= {f"digital/{path}": array for path, array in chip.digital.items()}
    for group in ("norms", "stats"):
        arrays |= {f"{group}/{p}/{k}": a for p, pair in getattr(chip, group).items() for k, a in pair.items()}
    arrays |= {f"head/{name}": array for name, array in chip.head.items()}
    present = {name: np.asarray(jax.device_get(array)) for name, array in arrays.items() if array is not None}
    arrays = {name.replace("/", "."): array for name, array in present.items()}
    return Record(arrays, _described(chip), CHIP_FORM)


def load_chip(folder: str | Path, network: Network | None = None) -> Chip:
    """The chip in ``folder``, bit for bit.

    Args:
        network: the structure, for a backbone that is not a registered model.

    Raises:
        BankError: no chip there, or a damaged one. ModelError: a structure is needed, or is not the chip's.
    """
    record, _ = store.read(folder, form=CHIP_FORM)
    return chip_of(record, str(folder), network)


def chip_of(record: Record, where: str, network: Network | None = None) -> Chip:
    """Undo :func:`chip_record`; ``where`` names its place in errors. What a file says is checked before it is believed.

    Raises:
        BankError: no whole chip. ModelError: a structure is needed, or is not the chip's.
    """
    try:
        network = network or _registered(record)
        if record.metadata["network"] != network.name:
            allowed = f"{record.metadata['network']}, what the chip was programmed with"
            raise ModelError("network", network.name, allowed)
        return _chip(record, network)
    except XbmError:
        raise
    except KeyError as error:
        raise BankError("chip", where, f"a whole chip; {error} is missing") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        allowed = f"an undamaged chip ({type(error).__name__}: {str(error)[:100]})"
        raise BankError("chip", where, allowed) from error


def _chip(record: Record, network: Network) -> Chip:
    arrays, described = record.arrays, record.metadata
    for name, array in arrays.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise BankError(f"chip.arrays[{name!r}]", "NaN", "numbers")
    tiles = {path: _tiles(path, layer, network, arrays) for path, layer in described["layers"].items()}
    norms, stats = (
        {p: {k: jnp.asarray(arrays[_name(group, p, k)]) for k in keys} for p, keys in owned.items()}
        for group, owned in (
            ("norms", {path: network.norm_arrays(path) for path in network.norms}),
            ("stats", dict.fromkeys(network.batch_norms, ("mean", "var"))),
        )
    )
    head = {k: jnp.asarray(arrays[_name("head", k)]) for k in ("kernel", "bias")}
    digital = {p: jnp.asarray(arrays[_name("digital", p)]) for p in described["digital"]}
    chip = Chip(tiles=tiles, digital=digital, norms=norms, stats=stats, head=head, network=network)
    wanted = {f"{p}/{k}": a for p, norm in (*norms.items(), *stats.items()) for k, a in norm.items()} | digital
    for path, array in wanted.items():
        if array.shape != network.shapes[path]:
            raise BankError(f"chip.{path}.shape", array.shape, f"{network.shapes[path]}, what {network.name} has")
    if head["kernel"].shape != (chip.num_features, *head["bias"].shape) or head["bias"].ndim != 1:
        raise BankError("chip.head.shape", head["kernel"].shape, f"({chip.num_features}, {head['bias'].size})")
    return chip


def _described(chip: Chip) -> dict[str, Any]:
    layers = {
        path: {
            "kernel_shape": list(t.plan.kernel_shape),
            "spec": codec.encode(t.plan.spec, f"chip.{path}.spec"),
            "fold": t.plan.fold,
            "fold_reason": t.plan.fold_reason,
            "signed_inputs": t.plan.signed_inputs,
            "key_impl": t.key_impl,
        }
        for path, t in chip.tiles.items()
    }
    network, classes = chip.network, int(chip.head["bias"].shape[0])
    described = {"network": network.name, "classes": classes, "layers": layers, "digital": sorted(chip.digital)}
    return described | ({} if network.preprocess is None else {"preprocess": network.preprocess.described()})


def _registered(record: Record) -> Network:
    name, classes = record.metadata["network"], record.metadata["classes"]
    if name not in MODELS:
        allowed = f"the structure of {name!r}, which is not one of " + ", ".join(MODELS)
        raise ModelError("network", None, allowed)
    if (classes,) != record.arrays["head.bias"].shape:
        raise BankError("chip.classes", classes, f"{record.arrays['head.bias'].shape}, as its head has")
    kept = record.metadata.get("preprocess")  # older chips have the registry's
    return named_network(name, classes, None if kept is None else Preprocess.of(kept))


def _tiles(path: str, layer: dict[str, Any], network: Network, arrays: dict[str, np.ndarray]) -> Tiles:
    shape, spec = tuple(layer["kernel_shape"]), codec.decode(layer["spec"])
    if shape != network.kernel_shape(path):
        raise BankError(f"chip.{path}.kernel_shape", shape, f"{network.kernel_shape(path)}, what {network.name} has")
    if not isinstance(spec, CrossbarSpec):
        raise BankError(f"chip.{path}.spec", type(spec).__name__, "a CrossbarSpec")
    plan = Plan(
        shape,
        spec,
        network.forms[path].conv,
        layer["fold"],
        layer["fold_reason"],
        layer["signed_inputs"],
    )
    cells = {name: _array(arrays, _name("tiles", path, name), name not in _OPTIONAL) for name in _CELLS + _SCALES}
    for name in ("levels", "programmed", "conductance"):
        if cells[name].shape[2:] != shape or cells[name].ndim != 2 + len(shape):
            raise BankError(f"chip.{path}.{name}.shape", cells[name].shape, f"[P, S, {', '.join(map(str, shape))}]")
    if cells["levels"].dtype.name != "uint8":
        raise BankError(f"chip.{path}.levels.dtype", cells["levels"].dtype.name, "uint8")
    grid = {name: _array(arrays, _name("tiles", path, f"adc_{name}")) for name in _ADC}
    adc = None if grid["lsb"] is None else AdcRange(**grid)
    differing = {name: _array(arrays, _name("tiles", path, f"mismatch_{name}")) for name in _MISMATCH}
    mismatch = None if differing["gain"] is None else Mismatch(**differing)
    kept = {name: _array(arrays, _name("tiles", path, f"lines_{name}")) for name in _LINES}
    lines = None if kept["effective"] is None else Lines(**kept)  # older chips have none, nor has one without lines
    grids = {"adc": adc, "mismatch": mismatch, "lines": lines}
    return Tiles(**cells, **grids, plan=plan, key_impl=_key_impl(path, layer, cells["key_data"]))


def _key_impl(path: str, layer: dict[str, Any], key_data: jax.Array) -> str:
    """The generator that a layer's key belongs to. Older files do not say it: theirs were read by the default one."""
    impl = layer.get("key_impl")
    if impl is None:
        impl = "threefry2x32" if key_data.shape == (2,) else str(jax.random.key_impl(jax.random.key(0)))
    try:
        jax.random.wrap_key_data(key_data, impl=impl)
    except (TypeError, ValueError) as error:
        allowed = f"a key of {impl!r}; load an older file where its generator is the default one"
        raise BankError(f"chip.{path}.key_data.shape", key_data.shape, allowed) from error
    return impl


def _array(arrays: dict[str, np.ndarray], name: str, required: bool = False) -> Any:
    return jnp.asarray(arrays[name]) if required or name in arrays else None


def _name(*parts: str) -> str:
    return ".".join(parts).replace("/", ".")

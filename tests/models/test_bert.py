"""The BERT encoder: the original library's numbers, its formulas, names, padding, and its norms as a task's."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from models.tiny import CONVERTED, IDEAL, structure
from models.tiny_text import HEADS, LAYERS, NORMS, POSITIONS, WIDTH, sentences, text_backbone, text_chip, text_network
from xbm_jax.crossbar import Adc
from xbm_jax.errors import DataError, ModelError
from xbm_jax.masks import methods
from xbm_jax.models import MODELS, Chip, InputSpec, calibrate, forward, initial_trained, load_backbone
from xbm_jax.models.weights.names import rename
from xbm_jax.tasks import inspect, predict, source_task

# ---------------------------------------------------------------------------------------------------------------------
# The encoder


def assert_near(got: Any, wanted: np.ndarray, share: float) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=share * np.abs(wanted).max())


@pytest.mark.slow
def test_hidden_states_and_features_are_the_librarys(shared_data: Callable[[str], Path], oracle: Callable) -> None:
    """To 1e-5 of the largest: float32 through six blocks; 1e-6 was found."""
    known = oracle("minilm_l6")
    found = load_backbone("minilm-l6", shared_data("minilm_l6_f16.safetensors"))
    inputs = {"ids": known["input_ids"].astype(np.int32), "mask": known["attention_mask"].astype(bool)}
    assert_near(found.logits(inputs), known["pooled"], 1e-5)  # without a head of its own it answers its features
    module: Any = found.network.module(dict(found.arrays))
    eight = {name: array[:8] for name, array in inputs.items()}
    assert_near(jax.jit(lambda x: module.hidden(**x))(eight), known["last_hidden"], 1e-5)


def literal_features(arrays: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """One sentence without padding through one block, a head at a time, in float64."""

    def dense(path: str, x: np.ndarray) -> np.ndarray:
        return x @ arrays[f"{path}/kernel"] + arrays[f"{path}/bias"]

    def norm(path: str, x: np.ndarray) -> np.ndarray:
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return (x - x.mean(-1, keepdims=True)) / spread * arrays[f"{path}/scale"] + arrays[f"{path}/bias"]

    x = arrays["words/embedding"][ids] + arrays["places/embedding"][: len(ids)] + arrays["segments/embedding"][0]
    x, own, attended = norm("norm", x), WIDTH // HEADS, []
    for head in range(HEADS):
        q, k, v = (dense(f"block0/{n}", x)[:, head * own : (head + 1) * own] for n in ("query", "key", "value"))
        weights = np.exp(q @ k.T / math.sqrt(own))
        attended.append(weights / weights.sum(-1, keepdims=True) @ v)
    x = norm("block0/norm1", x + dense("block0/proj", np.concatenate(attended, -1)))
    inner = dense("block0/fc1", x)
    return norm("block0/norm2", x + dense("block0/fc2", inner * (1 + erf(inner / math.sqrt(2))) / 2)).mean(0)


def test_a_block_is_its_formulas() -> None:
    arrays = {path: np.asarray(a, np.float64) for path, a in text_backbone().arrays.items()}
    inputs = sentences(3, real=6, length=9)
    wanted = [literal_features(arrays, ids[:6]) @ arrays["head/kernel"] + arrays["head/bias"] for ids in inputs["ids"]]
    assert_near(text_backbone().logits(inputs), np.array(wanted), 1e-5)


@pytest.mark.parametrize("fill", [0, 5])
def test_what_is_padding_changes_no_answer(fill: int) -> None:
    short = text_backbone().logits(sentences(4))
    assert_near(text_backbone().logits(sentences(4, length=12, fill=fill)), np.asarray(short), 1e-6)


def test_a_sentence_of_padding_alone_is_finite() -> None:
    """A batch is filled up with such."""
    inputs = sentences(2)
    assert np.isfinite(text_backbone().logits(inputs | {"mask": np.zeros_like(inputs["mask"])})).all()


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ModelError, match=rf"ids.shape = \(1, {POSITIONS + 1}\): at most {POSITIONS} tokens"):
        text_backbone().logits(sentences(1, real=POSITIONS + 1))


# ---------------------------------------------------------------------------------------------------------------------
# Names and sizes


def hugging_face_shapes() -> dict[str, tuple[int, ...]]:
    """What is in the published file."""
    found: dict[str, tuple[int, ...]] = {
        "embeddings.position_ids": (1, 512),
        "embeddings.word_embeddings.weight": (30_522, 384),
        "embeddings.position_embeddings.weight": (512, 384),
        "embeddings.token_type_embeddings.weight": (2, 384),
        "embeddings.LayerNorm.weight": (384,),
        "embeddings.LayerNorm.bias": (384,),
        "pooler.dense.weight": (384, 384),
        "pooler.dense.bias": (384,),
    }
    for i in range(6):
        dense = {f"attention.self.{name}": (384, 384) for name in ("query", "key", "value")}
        dense |= {"attention.output.dense": (384, 384), "intermediate.dense": (1536, 384), "output.dense": (384, 1536)}
        for name, shape in dense.items():
            found |= {f"encoder.layer.{i}.{name}.weight": shape, f"encoder.layer.{i}.{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found |= {f"encoder.layer.{i}.{name}.{kind}": (384,) for kind in ("weight", "bias")}
    return found


@pytest.mark.parametrize("prefix", ["", "bert.", "model."])
def test_every_array_finds_its_place(prefix: str) -> None:
    theirs = {prefix + name: np.broadcast_to(np.float32(0), shape) for name, shape in hugging_face_shapes().items()}
    ours = {path: a.shape for path, a in rename(theirs, MODELS["minilm-l6"].names).items()}
    shapes = structure("minilm-l6", 384).shapes
    assert ours == {path: shape for path, shape in shapes.items() if not path.startswith("head/")}
    assert {path: shapes[path] for path in ("head/kernel", "head/bias")} == {
        "head/kernel": (384, 384),
        "head/bias": (384,),
    }


def test_our_own_names_pass() -> None:
    arrays = text_backbone().arrays
    dotted = {path.replace("/", "."): np.asarray(array) for path, array in arrays.items()}
    assert rename(dotted, MODELS["minilm-l6"].names).keys() == arrays.keys()


def test_what_is_on_arrays() -> None:
    """10.6 of 22.7 million weights, and 165,888 columns of 64-row tiles."""
    network = structure("minilm-l6", 384)
    shapes = [network.kernel_shape(path) for path in network.kernels if path != network.head]
    assert sum(rows * columns for rows, columns in shapes) == 10_616_832
    assert sum(math.ceil(rows / 64) * columns for rows, columns in shapes) == 165_888


# ---------------------------------------------------------------------------------------------------------------------
# On the chip


@pytest.mark.parametrize("per", ["layer", pytest.param("column", marks=pytest.mark.slow)])
def test_calibration_counts_no_padding(per: Any) -> None:
    """Scales and ranges are those of the same sentences without any; padding that counts would change them."""
    plain = text_chip(CONVERTED.replace(adc=Adc(bits=8, per=per, percentile=99.0)))
    inputs = sentences(24, length=11, fill=3)
    padded = calibrate(plain, inputs)
    wrong = calibrate(plain, inputs | {"mask": np.ones_like(inputs["mask"])})
    for path in LAYERS:
        one, other = plain.tiles[path], padded.tiles[path]
        np.testing.assert_allclose(scale_of(padded, path), scale_of(plain, path), rtol=1e-5)
        assert one.adc is not None and other.adc is not None
        np.testing.assert_allclose(other.adc.lsb, one.adc.lsb, rtol=2e-3)  # a value may round to the next code
    scales, others = ([scale_of(chip, path) for path in LAYERS] for chip in (plain, wrong))
    assert not np.allclose(scales, others, rtol=1e-3)


def scale_of(chip: Chip, path: str) -> np.ndarray:
    scale = chip.tiles[path].input_scale
    assert scale is not None
    return np.asarray(scale)


def test_inspection_counts_no_padding() -> None:
    chip = text_chip(CONVERTED.replace(adc=Adc(bits=6, percentile=95.0)))
    plain, padded = inspect(chip, sentences(6)), inspect(chip, sentences(6, length=10, fill=3))
    for one, other in zip(plain.layers, padded.layers, strict=True):
        assert one.snr_db is not None and other.snr_db is not None and one.clip_rate > 0
        assert other.snr_db == pytest.approx(one.snr_db, abs=0.02)
        assert other.clip_rate == pytest.approx(one.clip_rate, abs=2e-3)
        assert other.codes_used == pytest.approx(one.codes_used, abs=1)
    assert "stayed digital: words/embedding 480, places/embedding 384, segments/embedding 32" in str(plain)


def test_a_sentence_of_padding_alone_calibrates_nothing() -> None:
    inputs = sentences(4)
    inputs["mask"][2] = False
    with pytest.raises(DataError, match="nothing but padding in example 2"):
        calibrate(text_chip(IDEAL), inputs)


def test_all_inputs_are_signed_and_both_ways_of_reading_them_agree() -> None:
    """GELU goes below zero, too; with ideal converters two passes and a bipolar one are the same sums."""
    chips = [text_chip(IDEAL.replace(negative_inputs=how)) for how in ("bipolar", "two_pass")]
    assert all(tiles.plan.signed_inputs for tiles in chips[0].tiles.values()) and sorted(chips[0].tiles) == LAYERS
    bipolar, two_pass = (np.asarray(predict(chip, source_task(chip), sentences(5))) for chip in chips)
    assert_near(two_pass, bipolar, 1e-5)
    assert_near(bipolar, np.asarray(text_backbone().logits(sentences(5))), 0.1)  # 8-bit inputs and weights


def test_a_task_owns_scale_and_bias_of_every_layer_norm() -> None:
    """They have no statistics, so that "full" and "affine" are one policy."""
    chip, inputs = text_chip(IDEAL), sentences(4)
    assert chip.stats == {} and sorted(chip.norms) == NORMS

    def answer(trained: Any, norms: Any) -> jax.Array:
        method = methods.norm_only(norms)
        return forward(chip, method, trained, {}, inputs, train=True)[0]

    trained = initial_trained(chip, methods.norm_only(), 3, jax.random.key(1))
    gradient = jax.grad(lambda t: jnp.sum(answer(t, "full") ** 2))(trained)["norms"]
    assert sorted(gradient) == NORMS
    assert all(np.abs(g).max() > 1e-4 for of_norm in gradient.values() for g in of_norm.values())
    assert_near(answer(trained, "affine"), np.asarray(answer(trained, "full")), 0)
    assert initial_trained(chip, methods.head_only(), 3, jax.random.key(1))["norms"] == {}


# ---------------------------------------------------------------------------------------------------------------------
# What a network of tokens takes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": np.ones((2, 7), np.int64)}, r"inputs\['ids'\] = 'int64\[2, 7\]': int32\['n', 7\]"),
        ({"ids": np.ones((2, 7, 1), np.int32)}, r"inputs\['ids'\] = 'int32\[2, 7, 1\]': int32\['n', 'any'\]"),
        ({"mask": np.ones((2, 8), bool)}, r"inputs\['mask'\] = 'bool\[2, 8\]': bool\['n', 7\]"),
        ({"mask": np.ones((2, 7), np.int32)}, r"inputs\['mask'\] = 'int32\[2, 7\]'"),
        ({"mask": np.ones((3, 7), bool)}, "3 examples.*: 2, as many as the others"),
        ({"types": np.ones((2, 7), np.int32)}, "the arrays that the network takes"),
    ],
)
def test_other_inputs_are_refused(changes: dict[str, Any], message: str) -> None:
    chip = text_chip(IDEAL)
    with pytest.raises(DataError, match=message):
        predict(chip, source_task(chip), sentences(2) | changes)


@pytest.mark.parametrize("mask", ["masks", "ids"])
def test_a_mask_is_a_boolean_array_of_the_inputs(mask: str) -> None:
    with pytest.raises(ModelError, match="the key of a boolean array"):
        InputSpec.of({"ids": np.ones(3, np.int32), "mask": np.ones(3, bool)}, mask=mask)


def test_any_length_is_tried_with_one_and_answers_all() -> None:
    assert sorted(text_network().kernels) == sorted([*LAYERS, "head"])
    chip = text_chip(IDEAL)
    short, long = (predict(chip, source_task(chip), sentences(3, length=n)) for n in (7, 12))
    assert_near(long, short, 1e-4)

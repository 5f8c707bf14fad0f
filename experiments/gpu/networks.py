"""Whole networks: training steps, eight tasks at once, reading and programming."""

from __future__ import annotations

from typing import Any

from benchmarks import networks
from experiments.gpu.layers import timed
from experiments.gpu.parts import Asked

__all__ = ["eight_tasks", "programming", "reading", "step"]

_SIZES: dict[str, dict[str, Any]] = {
    "ResNet-20": {"model": networks.RESNET20, "batch": 256, "pixels": 32},
    "ResNet-50": {"model": "resnet50-v1", "batch": 32, "pixels": 112},
    "MiniLM-L6": {"model": "minilm-l6", "batch": 32, "pixels": 48},
}
_TOY = {"model": networks.RESNET20, "batch": 2, "pixels": 8}


def step(asked: Asked, name: str, adc_bits: int | None) -> dict[str, Any]:
    """A mask training step, to the plain network's full one; peak memory and seconds to compile."""
    sizes = _TOY if asked.toy else _SIZES[name]
    ours, plain = networks.mask_step(adc_bits, **sizes), networks.plain_step(**sizes)
    return timed(ours.run, plain.run, asked) | {
        "peak_memory_ratio": round(ours.peak_bytes / plain.peak_bytes, 3),
        "peak_gib": round(ours.peak_bytes / 2**30, 3),
        "compile_seconds": round(ours.compile_seconds, 1),
        **sizes,
    }


def eight_tasks(asked: Asked) -> dict[str, Any]:
    """Goal: at most 0.5 of eight steps one after another."""
    batch, pixels = (1, 8) if asked.toy else (32, 32)
    return timed(*networks.eight_steps(batch, pixels), asked) | {"goal": 0.5, "batch": batch}


def reading(asked: Asked) -> dict[str, Any]:
    """The forward pass on the chip, to XLA's own convolutions; images a second."""
    batch, pixels = (2, 8) if asked.toy else (1024, 32)
    ours, plain = networks.read_compiled(8, batch, pixels), networks.plain_read(batch, pixels)
    found = timed(ours.run, plain.run, asked)
    return found | {"images_per_second": round(1e3 * batch / found["ours_ms"]), "batch": batch}


def programming(asked: Asked) -> dict[str, Any]:
    """Seconds of one chip, ideal wires and resistive ones, once compiled."""
    return {"seconds": networks.program_seconds(False)} | (
        {} if asked.toy else {"seconds with wires": networks.program_seconds(True)}
    )

"""Parts that go wrong, each in its own way, for ``test_gpu.py``."""

from __future__ import annotations

import os
import time
from typing import Any

from experiments.gpu.parts import Asked, Part


def machine(asked: Asked) -> dict[str, Any]:
    """A context without a look at the machine."""
    del asked
    return {"device": {"kind": "none"}, "versions": {"jax": "0"}}


def good(asked: Asked) -> dict[str, Any]:
    """How often it ran: it counts in a file."""
    count = asked.out / "count"
    seen = int(count.read_text()) + 1 if count.is_file() else 1
    count.write_text(str(seen))
    return {"runs": seen}


def raises(asked: Asked) -> dict[str, Any]:
    """Wrong, and says so."""
    raise RuntimeError(f"wrong in {asked.out.name}")


def dies(asked: Asked) -> dict[str, Any]:
    """As a crash of a driver."""
    del asked
    print("the last words", flush=True)
    os._exit(3)


def hangs(asked: Asked) -> dict[str, Any]:
    """As a collective that waits for ever."""
    del asked
    time.sleep(600)
    return {}


PARTS = (
    Part("machine", machine, 30.0, 0.0, always=True),
    Part("good", good, 20.0, 0.0),
    Part("raises", raises, 20.0, 0.0),
    Part("dies", dies, 20.0, 0.0),
    Part("hangs", hangs, 0.1, 0.0),
    Part("after", good, 20.0, 0.0),
    Part("large", good, 20.0, 1e9),
    Part("elsewhere", good, 20.0, 0.0, packages=("no-such-package",)),
    Part("no file", good, 20.0, 0.0, files=("none.npz",)),
)

"""A training that several processes share: ``processes.py FOLDER PROCESS COUNT PORT [LAST STEP]`` is one of them.

Every process has four virtual devices. All learn one task, saved in FOLDER/run; the first one puts it into FOLDER/bank,
and each prints what it learned. With a last step they are killed there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from xbm_jax.storage.trees import digest

DEVICES = 4
EPOCHS = 3


def said(task: Any) -> dict[str, Any]:
    """Losses, mask bits and accuracy of a task."""
    bits = [np.asarray(m) > 0 for m in jax.tree.leaves(task.trained["masks"])]
    losses = [row["loss"] for row in task.meta["history"]]
    return {"losses": losses, "bits": digest(bits), "accuracy": task.meta["accuracy"]}


def learned(save: Path | None, mesh: Any, last: int = 0) -> Any:
    """The task: always the same one."""
    import xbm_jax as xbm
    from tasks import tiny

    def report(seen: dict[str, Any]) -> None:
        if seen["step"] == last:
            os.kill(os.getpid(), signal.SIGKILL)

    config = xbm.Recipe(epochs=EPOCHS, batch_size=16)
    given = {"method": tiny.METHODS["xbm"], "key": jax.random.key(5), "config": config, "mesh": mesh}
    return xbm.adapt(tiny.chip("adc"), tiny.stripes(), **given, report=report if last else None, save=save)


def main(folder: Path, process: int, count: int, port: int, last: int = 0) -> None:
    """Learn, store, say."""
    jax.config.update("jax_num_cpu_devices", DEVICES)
    if count > 1:
        jax.distributed.initialize(f"localhost:{port}", count, process, initialization_timeout=200)
    import xbm_jax as xbm
    from tasks import tiny

    task = learned(folder / "run", xbm.mesh(), last)
    if jax.process_index() == 0:
        xbm.MaskBank.create(folder / "bank", tiny.chip("adc")).put("stripes", task)
    print(json.dumps({**said(task), "devices": jax.device_count()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:]))

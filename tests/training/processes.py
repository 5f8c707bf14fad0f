"""A training that several processes share, run as each of them: ``python processes.py FOLDER PROCESS COUNT PORT``.

Every process has four virtual devices. All learn one task together; the first one puts it into a bank in FOLDER. Prints
the losses and a digest of the mask bits.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np

RECIPE = {"epochs": 2, "batch_size": 16}


def run(folder: Path, process: int, count: int, port: int) -> None:
    """Learn, store, say."""
    jax.config.update("jax_num_cpu_devices", 4)
    if count > 1:
        jax.distributed.initialize(f"localhost:{port}", count, process, initialization_timeout=60)
    import xbm_jax as xbm
    from tasks import tiny

    chip, data = tiny.chip("adc"), tiny.stripes()
    mesh = xbm.mesh()
    task = xbm.adapt(
        chip, data, method=tiny.METHODS["xbm"], key=jax.random.key(5), config=xbm.Recipe(**RECIPE), mesh=mesh
    )
    if jax.process_index() == 0:
        xbm.MaskBank.create(folder / "bank", chip).put("stripes", task)
    bits = np.concatenate([np.asarray(m).ravel() > 0 for m in jax.tree.leaves(task.trained["masks"])])
    losses = [row["loss"] for row in task.meta["history"]]
    said = {"losses": losses, "bits": hashlib.sha256(bits.tobytes()).hexdigest(), "accuracy": task.meta["accuracy"]}
    print(json.dumps({**said, "devices": jax.device_count()}), flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]), *(int(text) for text in sys.argv[2:]))

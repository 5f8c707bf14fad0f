"""The process that does the parts: ``python -m experiments.gpu.worker JSON``, started by the driver alone."""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path

from experiments.gpu.parts import Asked, table_of

from xbm_jax.storage.files import replace_json


def main(text: str) -> None:
    """Do the parts in their order, and write what each found when it is done."""
    work = json.loads(text)
    end, by_name = time.monotonic() + work["seconds"], {part.name: part for part in table_of(work["table"])}
    for name in work["parts"]:
        part, left = by_name[name], end - time.monotonic()
        path = Path(work["folder"]) / f"{part.key}.json"
        if left < part.least_seconds:
            replace_json(path, {"status": "no time", "left_seconds": round(left, 1)})
            return
        asked = Asked(
            toy=work["toy"],
            out=Path(work["out"]),
            data=None if work["data"] is None else Path(work["data"]),
            seconds=left if work["toy"] else min(left, part.limit_seconds),
        )
        print(f"--- {name}", flush=True)
        began = time.monotonic()
        try:
            found = {"status": "done", "found": part.measure(asked)}
        except Exception:  # whatever a part raises, those after it are done
            print(traceback.format_exc(), flush=True)
            found = {"status": "failed", "error": traceback.format_exc()[-2000:]}
        replace_json(path, found | {"seconds": round(time.monotonic() - began, 2)})


if __name__ == "__main__":
    main(sys.argv[1])

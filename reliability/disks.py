"""A disk that is full at a random write, and a bank that was saved on another number of devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from reliability.small import Counts, bank_values, make_bank, rng, stored_values, task, tiny, value_of
from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.errors import XbmError

NEW = 30
"""Seed of the task that replaces another."""


def full_disk(trials: int) -> Counts | str:
    """A put while a small file system has room for less and less of it; or why there is no such file system here."""
    draw, found = rng(5), Counter()
    with tempfile.TemporaryDirectory() as place:
        disk, whole = Path(place) / "disk", Path(place) / "bank"
        disk.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True
        )
        if made.returncode:
            return f"no tmpfs may be mounted here ({made.stderr.strip()})"
        try:
            make_bank(whole)
            before, new = bank_values(whole), stored_values([NEW])[f"made up {NEW}"]
            needed = _bytes_of(whole / "tasks")
            for _ in range(trials):
                shutil.copytree(whole, disk / "bank")
                _fill(disk, int(draw.integers(needed)))
                found[_put(disk / "bank", before, new)] += 1
                for path in disk.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return found


def _put(folder: Path, before: dict[str, object], new: str) -> str:
    """How a put into a nearly full disk ended; ``gc`` leaves nothing of it."""
    bank, outcome = MaskBank.open(folder, tiny.chip("adc")), "whole"
    try:
        bank.put("a", task(NEW))
    except XbmError:
        outcome = "named"
    except Exception:
        return "bare"
    wanted = {**before, "a": new if outcome == "whole" else before["a"]}
    if bank_values(folder) != wanted:
        return "silent"
    (folder.parent / "filling").unlink(missing_ok=True)
    bank.gc()
    left = [path for path in folder.rglob("*") if "writing" in path.name or path.name.endswith(".part")]
    return "leftovers" if left or bank.verify() else outcome


def _fill(disk: Path, room: int) -> None:
    """Leave so many bytes of a file system."""
    free = os.statvfs(disk)
    with (disk / "filling").open("wb") as file:
        file.write(b"\0" * max(free.f_bavail * free.f_frsize - room, 0))


def _bytes_of(folder: Path) -> int:
    return sum(4096 * (1 + path.stat().st_size // 4096) for path in folder.rglob("*"))


def other_devices(trials: int) -> Counts:
    """A bank that a process with eight devices wrote, of arrays that stood on all of them, read by one with one."""
    found = Counter()
    for _ in range(trials):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "bank"
            for devices in (8, 1):
                command = [sys.executable, "-m", "reliability.disks", str(folder), str(devices)]
                ran = subprocess.run(command, capture_output=True, text=True)
            found["whole" if ran.returncode == 0 and ran.stdout.strip() == "whole" else "lost"] += 1
    return found


def _on_devices(folder: Path, devices: int) -> None:
    import jax

    from xbm_jax.layout import Layout, mesh

    jax.config.update("jax_num_cpu_devices", devices)
    if devices > 1:
        make_bank(folder)
        task_everywhere = task(NEW)
        spread = Layout(mesh()).everywhere(task_everywhere.trained)
        MaskBank.open(folder, tiny.chip("adc")).put("a", task_everywhere.replace(trained=spread))
        return
    chip = load_chip(folder / "chip", tiny.network())
    got = value_of(MaskBank.open(folder, chip).get("a"))
    print("whole" if got == stored_values([NEW])[f"made up {NEW}"] else "other")


if __name__ == "__main__":
    _on_devices(Path(sys.argv[1]), int(sys.argv[2]))

"""Processes that are killed: while they replace a task, and while they train."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from reliability.small import Counts, bank_values, chip, make_bank, rng, stored_values, task, tiny, value_of
from xbm_jax.banks import MaskBank, load_chip, save_chip
from xbm_jax.errors import XbmError

SEEDS = range(20, 24)
"""Of the tasks that replace one another."""


def killed_while_replacing(trials: int) -> Counts:
    """SIGKILL of a process that replaces one task by the next, at a random moment: the old one or the new one stands.

    Each process goes on replacing until it is killed; then others are started on what it left.
    """
    draw, found = rng(3), Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "bank"
        make_bank(folder)
        before = bank_values(folder)
        allowed = {before["a"], *stored_values(SEEDS).values()}
        for _ in range(trials):
            with subprocess.Popen(_replacing(folder), stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                process.stdout.readline()  # it has begun
                time.sleep(float(draw.uniform(0, 0.3)))
                process.kill()
            got = bank_values(folder)
            others = all(got[name] == before[name] for name in ("b", "c"))
            found["whole" if got["a"] in allowed and others else "lost"] += 1
    return found


def _replacing(folder: Path) -> list[str]:
    return [sys.executable, "-m", "reliability.kills", str(folder)]


def replace_for_ever(folder: Path) -> None:
    """Replace a task by the next, again and again."""
    own = load_chip(folder / "chip", tiny.network())
    bank, tasks = MaskBank.open(folder, own), [task(seed, on=own) for seed in SEEDS]
    bank.put("a", tasks[0])
    print("begun", flush=True)
    while True:
        for each in tasks:
            bank.put("a", each)


def killed_while_training(trials: int) -> Counts:
    """SIGKILL of a training at a random moment, again and again until it is done: it ends bit-equal."""
    from training import killed

    draw, found = rng(4), Counter()
    cases = [case for case in killed.CASES if case != "mesh"]
    wanted = {}
    for trial in range(trials):
        case = cases[trial % len(cases)]
        if case not in wanted:
            wanted[case] = killed.digest_of(killed.learned(case))
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "run"
            killed.killed(folder, case, float(draw.uniform(0, 1.5)))
            ended = killed.digest_of(killed.learned(case, folder))
        found["whole" if ended == wanted[case] else "silent"] += 1
    return found


def two_writers(trials: int, puts: int = 20, limit: float = 300.0) -> Counts:
    """Two processes put ten tasks each into one bank at once, half of them under the same names."""
    found, wanted = Counter(), stored_values(range(2 * puts))
    for _ in range(trials):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "bank"
            MaskBank.create(folder, chip())
            save_chip(chip(), folder / "chip")
            command = [sys.executable, "-m", "reliability.kills", str(folder)]
            running = [
                subprocess.Popen([*command, str(i), str(puts // 2)], stdout=subprocess.PIPE, text=True) for i in (0, 1)
            ]
            found[_ended(folder, running, limit, wanted)] += 1
    return found


def _ended(folder: Path, running: list[subprocess.Popen[str]], limit: float, wanted: dict[str, str]) -> str:
    """How a trial of two writers ended: every put that did not fail by name has to be there."""
    said: list[dict[str, str]] = []
    try:
        for process in running:
            out, _ = process.communicate(timeout=limit)
            said.append(json.loads(out.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return "hung"
    except (ValueError, IndexError):
        return "bare"
    finally:
        for process in running:
            process.kill()
    bank = MaskBank.open(folder, chip())
    stored: dict[str, set[str]] = {}
    for each in said:
        for name, value in each.items():
            stored.setdefault(name, set()).add(value)
    refused = any(value == "refused" for each in said for value in each.values())
    for name, values in stored.items():
        put = {wanted[value] for value in values - {"refused"}}
        if put and value_of(bank.get(name)) not in put:
            return "silent"
    return "named" if refused else "whole"


def write_some(folder: Path, which: int, puts: int) -> None:
    """One of two writers: names of its own and common ones; says what it put."""
    own_chip = load_chip(folder / "chip", tiny.network())
    bank, said = MaskBank.open(folder, own_chip), {}
    print("begun", flush=True)
    for i in range(puts):
        name, own = (f"common{i}" if i % 2 else f"own{which}-{i}"), task(puts * which + i, on=own_chip)
        try:
            bank.put(name, own)
            said[name] = own.meta["task"]
        except XbmError:
            said[name] = "refused"
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    place, *rest = sys.argv[1:]
    if rest:
        write_some(Path(place), *(int(text) for text in rest))
    else:
        replace_for_ever(Path(place))

"""Build the wheel, install it alone into fresh environments, and run the quickstart there, in an empty folder.

    python tools/try_wheel.py [lowest] [newest] [--keep FOLDER] [-- quickstart's options]

``lowest``: every dependency that the package declares at the lowest version that it allows; ``newest``: whatever the
package index gives today. By default both, one after the other. Needs a package index, about 1 GB for each, and
the time of two installs and two quickstarts. Nothing of the clone is on the path of what is run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("lowest", "newest")
WRITTEN = ("results.json", "report.html", "REPORT.md", "accuracy_against_bits.png", "bank/bank.json")


def main() -> None:
    given, quickstart = options(sys.argv[1:])
    with tempfile.TemporaryDirectory() as passing:
        work = given.keep or Path(passing)
        wheel = built(work / "wheel")
        for kind in given.kinds or KINDS:
            tried(kind, wheel, work / kind, quickstart)


def options(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Ours, and the quickstart's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], default=[])
    parser.add_argument("--keep", type=Path, help="a folder for the environments and runs, which stay")
    end = args.index("--") if "--" in args else len(args)
    return parser.parse_args(args[:end]), args[end + 1 :]


def built(folder: Path) -> Path:
    """The wheel of this clone."""
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(folder), str(ROOT)])
    return max(folder.glob("xbm_jax-*.whl"), key=lambda path: path.stat().st_mtime)


def lowest(dependencies: list[str]) -> list[str]:
    """Constraints that pin each dependency to the version that it has to have at least."""
    return [re.sub(r"\[.*?\]", "", requirement).replace(">=", "==") for requirement in dependencies]


def tried(kind: str, wheel: Path, place: Path, quickstart: list[str]) -> None:
    """Install into a new environment, then run what a newcomer runs."""
    run([sys.executable, "-m", "venv", "--clear", str(place / "venv")])
    bin_folder, run_folder = place / "venv" / "bin", place / "empty"
    options = []
    if kind == "lowest":
        declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
        (place / "lowest.txt").write_text("\n".join(lowest(declared)) + "\n")
        options = ["--constraint", str(place / "lowest.txt")]
    run([str(bin_folder / "python"), "-m", "pip", "install", "--quiet", *options, str(wheel)])
    run_folder.mkdir(exist_ok=True)
    xbm = str(bin_folder / "xbm")
    run([xbm, "doctor"], run_folder)
    run([xbm, "quickstart", "--out", "first", *quickstart], run_folder)
    missing = [name for name in WRITTEN if not (run_folder / "first" / name).is_file()]
    if missing:
        raise SystemExit(f"{kind}: the quickstart left no {', '.join(missing)}")
    rows = json.loads((run_folder / "first" / "results.json").read_text())["rows"]
    print(f"{kind}: {wheel.name} runs alone; {len(rows)} results, xbm at {100 * best(rows):.1f} % of the first task")


def best(rows: list[dict]) -> float:
    """The accuracy of masks on the first task."""
    return next(row["accuracy"] for row in rows if row["method"] == "xbm")


def run(command: list[str], folder: Path | None = None) -> None:
    """Run a command that sees nothing of the clone; its failure is ours."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    print("$", " ".join(command), flush=True)
    done = subprocess.run(command, cwd=folder, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: {' '.join(command)}")


if __name__ == "__main__":
    main()

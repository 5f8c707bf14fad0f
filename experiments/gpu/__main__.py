"""The command: ``python -m experiments.gpu``. It needs the standard library alone until it knows what is missing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import experiments.gpu
from experiments.gpu import packages


def main(argv: list[str] | None = None) -> int:
    """Say what is missing, run the parts, and say what came of them; 1 where a part failed, 2 where nothing can run."""
    asked = _arguments().parse_args(argv)
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.wheels is not None:
        packages.install(asked.wheels, asked.out / ".site")
        sys.path.insert(0, str((asked.out / ".site").resolve()))
    lacking = packages.missing(packages.NEEDED)
    for line in (*lacking, *packages.too_old()):
        print(f"gpu: {line}", file=sys.stderr)
    if lacking:
        print("gpu: nothing can run; `make gpu-wheels` on a machine with a package index", file=sys.stderr)
        return 2
    from experiments.gpu.driver import drive

    return drive(asked)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("gpu", description=experiments.gpu.__doc__, formatter_class=_Formatter)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/gpu"), help="folder of what is written")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install into <out>/.site")
    parser.add_argument("--data", type=Path, help="folder with weights and a set of images")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds in all")
    parser.add_argument("--only", default="", help="parts whose name contains this")
    parser.add_argument("--again", action="store_true", help="also what is done already")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, and no accelerator asked for")
    return parser


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


if __name__ == "__main__":
    sys.exit(main())

"""The command: ``python -m experiments.suite``."""

from __future__ import annotations

import sys

import tyro
from experiments import suite
from experiments.suite.run import Config, main

import xbm_jax as xbm

if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=suite.__doc__))
    except xbm.XbmError as error:
        sys.exit(f"suite: {error}")

"""The command: ``python -m experiments.suite``."""

from __future__ import annotations

import tyro
from experiments import suite
from experiments.resume import command
from experiments.suite.run import Config, main

if __name__ == "__main__":
    with command("suite"):
        main(tyro.cli(Config, description=suite.__doc__))

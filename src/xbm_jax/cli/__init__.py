"""The ``xbm`` command."""

from __future__ import annotations

import os
import sys

import tyro

from xbm_jax.cli.bank_options import Bank
from xbm_jax.cli.compiled import FLAG, keep_compiled, without_flag
from xbm_jax.cli.console import flushed, printable
from xbm_jax.cli.options import (
    Adapt,
    Command,
    Completion,
    Cost,
    Doctor,
    Inspect,
    Predict,
    Quickstart,
    Report,
    Watch,
    check_seed,
)
from xbm_jax.errors import Interrupted, XbmError
from xbm_jax.training import interruptible

__all__ = ["main"]


def main(args: list[str] | None = None) -> None:
    """Run the command line; errors that a user can act on are one line on standard error, exit code 2.

    The line is followed by a list, indented, where weights do not fit in several places. Exit code 1: the command did
    what it could, and standard error names what is amiss (a damaged task among others). A reader that goes away, as
    ``xbm bank list FOLDER | head -1``, ends the command without a word, with the exit code of other programs, 141.
    Ctrl-C leaves with 130, SIGTERM with 143; a task that was being learned is saved first.
    """
    printable()
    try:
        with interruptible():
            own, kept = without_flag(sys.argv[1:] if args is None else args)
            if own == ["--version"]:
                from xbm_jax import __version__

                print(f"xbm_jax {__version__}")
                return
            command = _parsed(own)
            keep_compiled(kept)
            code = _run(command)
            flushed()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more on its way out.
        raise SystemExit(141) from None
    except (XbmError, OSError) as error:
        print(f"xbm: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as stopped:
        code = stopped.exit_code if isinstance(stopped, Interrupted) else 130
        print("\nxbm: interrupted; what is finished is kept, run the same command again to carry on", file=sys.stderr)
        if args is None:  # The process is ours. Python's own way out crashes where XLA is still computing.
            flushed()
            sys.stderr.flush()
            os._exit(code)
        raise SystemExit(code) from None
    if code:
        raise SystemExit(code)


def _parsed(args: list[str]) -> Command:
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    text = f"Multi-task adaption on ReRAM crossbars. {FLAG}: nothing compiled is kept in the cache folder; --version."
    return tyro.cli(Command, prog="xbm", description=text, args=args, config=config)


def _run(command: Command) -> int:
    """Do what was asked; a command's own modules are imported when it is, so that ``--help`` is quick."""
    check_seed(command)
    match command:
        case Predict():
            from xbm_jax.cli.predict import predict_command

            return predict_command(command)
        case Watch():
            from xbm_jax.cli.watch import watch_command

            return watch_command(command)
        case Doctor():
            from xbm_jax.cli.doctor import doctor_command

            return doctor_command()
        case Completion(shell):
            _parsed(["--tyro-print-completion", shell])
    from xbm_jax.cli import bank, commands, cost, quickstart
    from xbm_jax.cli.report import report_command

    match command:
        case Report():
            report_command(command)
        case Quickstart(out, seed, full, source_data):
            quickstart.quickstart(out, seed=seed, full=full, source_data=source_data)
        case Adapt():
            return commands.adapt_command(command)
        case Inspect():
            commands.inspect_command(command)
        case Cost():
            cost.cost_command(command)
        case Bank(action):
            return bank.bank_command(action)
    return 0

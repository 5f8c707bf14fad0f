"""Programs that a command compiled are kept in the user's cache folder: the next one reads them.

The library never sets this: what a process of the user's own caches is theirs to say. JAX can bound a cache's size by
itself only with a package that is not ours to ask for, so the oldest programs are removed here before a command begins.
"""

from __future__ import annotations

import os
import platform
import zlib
from contextlib import suppress
from pathlib import Path

from xbm_jax.errors import DataError
from xbm_jax.paths import cache_folder

__all__ = ["FLAG", "VARIABLE", "keep_compiled", "passed_on", "without_flag"]

FLAG, VARIABLE = "--no-compile-cache", "XBM_COMPILE_CACHE"

_OFF = ("off", "0", "no", "false", "none")

_LARGEST = 2**30
"""Bytes that the folder may take."""

_LEAST_SECONDS = 0.02
"""JAX keeps what took a second to compile; a command compiles dozens of smaller programs, which take as long again."""


def without_flag(args: list[str]) -> tuple[list[str], bool]:
    """The arguments that are a command's own, and whether compiled programs are to be kept."""
    end = args.index("--") if "--" in args else len(args)
    kept = [arg for arg in args[:end] if arg != FLAG]
    return kept + args[end:], len(kept) == end


def keep_compiled(wanted: bool = True) -> Path | None:
    """Have JAX keep what it compiles, and say where; ``None`` where it is not wanted, or not possible.

    A cache that the user gave JAX is left alone. A folder that cannot be written is no error: all is compiled anew.
    """
    import jax

    chosen = os.environ.get(VARIABLE, "").strip()
    theirs = os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.values["jax_compilation_cache_dir"]
    if not wanted or chosen.lower() in _OFF or theirs:
        return None
    try:
        folder = (Path(chosen).expanduser() if chosen else cache_folder("compiled")) / _machine()
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            return None
        _prune(folder.parent, _LARGEST)
    except (OSError, RuntimeError, DataError):  # no home folder is one of the last two
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return folder


def passed_on() -> dict[str, str]:
    """The environment of a new process that reads and keeps compiled programs where this one does."""
    import jax

    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    chosen = {name.upper(): str(jax.config.values[name]) for name in settings if jax.config.values[name] is not None}
    return {**os.environ, **chosen}


def _machine() -> str:
    """What tells machines apart that share a home folder: code for one processor may not run on another."""
    described = platform.processor()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        described += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.system()}-{platform.machine()}-{zlib.crc32(described.encode()):08x}".lower()


def _prune(folder: Path, largest: int) -> None:
    """Remove the programs that were not used for longest until three quarters of the room are taken, if all is."""
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # another command removed it
            seen = path.stat()
            if path.is_file():
                found.append((max(seen.st_atime, seen.st_mtime), seen.st_size, path))
    total = sum(size for _, size, _ in found)
    if total <= largest:
        return
    for _, size, path in sorted(found):
        if total <= largest * 3 // 4:
            break
        with suppress(OSError):
            path.unlink()
            total -= size

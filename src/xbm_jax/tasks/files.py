"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from xbm_jax.errors import OutputError

__all__ = ["replace_file"]


def replace_file(path: str | Path, content: str | bytes) -> None:
    """Put ``content`` (text as UTF-8) at ``path`` in one step, making its folder if need be.

    A reader sees the old file or the new. Whatever goes wrong, Ctrl-C too, the old one stays and no part is left over.

    Raises:
        OutputError: the place cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        raise OutputError("file", str(path), f"a writable file ({error.strerror})") from error
    finally:
        _remove(part)


def _remove(part: Path) -> None:
    """Remove what a failure left; where the folder itself is the trouble there is nothing to remove."""
    try:
        part.unlink(missing_ok=True)
    except OSError:
        return

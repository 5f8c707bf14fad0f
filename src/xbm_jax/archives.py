"""What an archive may unpack to: a small file that claims to hold a huge array is refused before memory is taken.

The rule, for ``.npz`` files and PyTorch's archives alike: all members together are at most 16 times the file plus 1 GiB
(repack what is larger without compression, as ``np.savez`` does), and an array's header says as many bytes as its
member holds.
"""

from __future__ import annotations

import math
import pickle
import struct
import tokenize
import zipfile
import zlib

import numpy as np

__all__ = ["DAMAGE", "check_member", "check_total", "check_unpacked"]

# What zipfile, zlib, pickle and NumPy raise on damaged bytes (NumPy: TypeError for a single array, MemoryError too).
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError, tokenize.TokenError, AssertionError),
    *(NotImplementedError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError),
    *(MemoryError, RecursionError, SyntaxError),
)

_RATIO, _ALWAYS = 16, 2**30
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def check_total(unpacked: int, stored: int) -> None:
    """Raise ValueError if ``unpacked`` bytes are more than a file of ``stored`` bytes may hold."""
    if unpacked > _RATIO * stored + _ALWAYS:
        allowed = f"{_RATIO} times its {stored} bytes plus 1 GiB may be"
        raise ValueError(f"unpacks to {unpacked} bytes, more than {allowed}; store it without compression")


def check_unpacked(archive: zipfile.ZipFile, stored: int) -> None:
    """Raise ValueError if the members of an archive of ``stored`` bytes are too large together."""
    check_total(sum(member.file_size for member in archive.infolist()), stored)


def check_member(archive: zipfile.ZipFile, name: str) -> None:
    """Raise ValueError unless the array ``name`` of an ``.npz`` is as large as its own header says.

    NumPy takes memory for what the header says before it reads on. Pickled objects are NumPy's to refuse.
    """
    member = archive.NameToInfo.get(f"{name}.npy")
    if member is None:
        raise ValueError(f"{name} is no array")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"an array in version {version} of NumPy's format, not (1, 0) or (2, 0)")
        shape, _, dtype = _HEADERS[version](file)
        held = member.file_size - file.tell()
    if not dtype.hasobject and math.prod(shape) * max(dtype.itemsize, 1) != held:  # of texts of length 0 any number fit
        raise ValueError(f"a header of {dtype}{list(shape)} before {held} bytes")

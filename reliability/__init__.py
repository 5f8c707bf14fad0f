"""Faults injected into banks, saved runs and servers, and what comes of each: ``make faults``.

They are injected into the tests' own tiny network.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for _place in (ROOT, ROOT / "tests"):
    if str(_place) not in sys.path:
        sys.path.insert(0, str(_place))

"""The tests of this folder share the Hub of `tests/fake_hub`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

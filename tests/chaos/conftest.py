"""Makes the benchmarks importable, which are not installed; these tests use their jobs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

"""Settings of the metrics' reference tests: they find their files as those of Open-Sora-Plan in `tests/golden` do."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))  # for the module `reference`

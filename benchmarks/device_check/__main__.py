"""The check of a new GPU node: `python3 -m benchmarks.device_check --json FILE [--dry] [--part NAME ...]`.

It takes less than six minutes on one GPU. In the control environment of the checkout it uses the checkout's
environments. Any other Python that has torch and the packages of `wheels.txt` plays all environments itself; nothing
is built and nothing is downloaded. `--dry` runs every part at tiny sizes on the CPU.

Exit code: 0 if no part failed, 1 if one failed, 2 if there is nothing to check.
"""

from __future__ import annotations

import sys

from benchmarks.device_check.source_folders import make_importable

make_importable()

from benchmarks.device_check.command import main  # noqa: E402

sys.exit(main())

"""The machine knows no agent by name: it speaks of stages, and configurations name them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GENERAL = [
    "runtime/mora_runtime", "runtime/mora_training", "runtime/mora_environment", "trainer/mora_trainer",
    *(f"launch/mora_launch/{folder}" for folder in ("config", "environments", "jobs", "profiling")),
]  # fmt: skip
# A word in quotes, or a role such as `image.0`; not the modality `images`, nor a file such as video.mp4.
ROLE = re.compile(r"""["'](image|video|sd3|opensora)["']|\b(image|video)\.\d|\b(IMAGE|VIDEO|SD3|OPENSORA)\b""")


def test_the_general_machine_names_no_agent_and_no_environment() -> None:
    files = [path for folder in GENERAL for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if ROLE.search(line)
    ]
    assert found == []

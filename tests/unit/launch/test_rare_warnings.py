"""Only some of the warnings that clients cause are logged, but all errors."""

from __future__ import annotations

import logging

from mora_launch.web.rare_warnings import RareWarnings


def record(level: int) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", level, "", 0, "Invalid HTTP request received.", (), None)


def test_a_flood_of_warnings_leaves_ten_lines_per_minute() -> None:
    now_s = 0.0
    rare = RareWarnings(lambda: now_s)
    assert sum(rare.filter(record(logging.WARNING)) for _ in range(1000)) == 10
    assert all(rare.filter(record(logging.ERROR)) for _ in range(1000))
    now_s = 61.0
    assert sum(rare.filter(record(logging.WARNING)) for _ in range(1000)) == 10

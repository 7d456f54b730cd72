"""Files that are replaced whole."""

import os
from pathlib import Path

import pytest
from mora_runtime.files.durable_files import replace_text


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    for text in ("first", "ö, the second and longer one"):
        replace_text(record, text)
        assert record.read_text(encoding="utf-8") == text
    assert os.listdir(tmp_path) == ["record.json"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    record = tmp_path / "record.json"
    replace_text(record, "old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, refuse)
    with pytest.raises(OSError, match="No space"):
        replace_text(record, "new")
    assert record.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["record.json"]

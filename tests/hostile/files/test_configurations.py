"""Files of strangers: configurations. Any YAML is read within bounds, or refused in one line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from mora_launch.config.foreign_yaml import YamlRefused, parse_yaml
from mora_launch.config.train_config import load_config
from mora_runtime.errors import SettingsError

TINY = Path(__file__).resolve().parents[3] / "configs" / "tiny.yaml"


def bomb(width: int, depth: int) -> str:
    lines = ["a0: &a0 [" + ",".join("x" * width) + "]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * width)}]" for n in range(1, depth)]
    return "\n".join(lines)


def ladder(num_rungs: int) -> str:
    """Few values, but each alias is nested deeper than its anchor."""
    rungs = [f"a{n}: &a{n} " + "[" * 20 + f"*a{n - 1}" + "]" * 20 for n in range(1, num_rungs)]
    return "\n".join(["a0: &a0 x", *rungs])


REFUSED = {
    "nine to the eighth by lists": (bomb(9, 8), "by aliases"),
    "two to the fortieth": (bomb(2, 40), "by aliases"),
    "sections by merging": (
        "a0: &a0 {x: 1}\n" + "\n".join(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)),
        "by aliases",
    ),
    "deep by aliases": (ladder(100), "by aliases"),
    "itself": ("a: &a [*a]", "contains itself"),
    "itself by a detour": ("a: &a {b: {c: *a}}", "contains itself"),
    "deep lists": ("[" * 500_000, "nesting"),
    "deep sections": ("{a: " * 200_000, "nesting"),
    "deep by indentation": ("".join(" " * n + "a:\n" for n in range(1000)), "nesting"),
    "many values": ("[" + "1," * 300_000 + "]", "values"),
    "a key twice": ("name: a\nseed: 1\nname: b", r"`name` occurs twice \(line 3, column 1\)"),
    "a key twice in quotes": ("name: a\n'name': b", "occurs twice"),
    "a number as key": ("1: a", r"strings as keys, got 1 \(line 1"),
    "yes as key": ("yes: a", "strings as keys"),
    "nothing as key": ("~: a", "strings as keys"),
    "a list as key": ("[a]: b", "strings as keys"),
    "a program": ("!!python/object/apply:os.system [ls]", "tag"),
    "a tag of one's own": ("a: !evil x", "tag"),
    "bytes": ("a: !!binary aGVsbG8=", "tag"),
    "a set": ("a: !!set {b}", "tag"),
    "a long number": ("seed: " + "9" * 5000, "digits"),
    "a long number in base 60": ("seed: 1" + ":1" * 100_000, "digits"),
    "a long number in base 16": ("seed: 0x" + "f" * 500_000, "digits"),
    "no number": ("seed: !!int x", "does not match its tag"),
    "no truth": ("seed: !!bool x", "does not match its tag"),
    "no day": ("seed: 2001-99-99", "does not match its tag"),
    "escape codes": ("name: \x1b[2J", "is not YAML"),
    "escape codes in a key": ('"\\e[2J": 1\n"\\e[2J": 2', "occurs twice"),
    "half a pair": ('name: "\\ud800"', "YAML|surrogate"),
    "two documents": ("a: 1\n---\nb: 2", "single document"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_yaml_that_no_configuration_needs_is_refused_at_once_in_one_line(tmp_path: Path, name: str) -> None:
    text, words = REFUSED[name]
    path = tmp_path / "strange.yaml"
    path.write_text(text)
    started_s = time.thread_time()  # others may use this machine too
    with pytest.raises(SettingsError, match=words) as caught:
        load_config(path, [])
    assert time.thread_time() - started_s < 10
    assert str(caught.value).isprintable()
    if "\n" not in text:
        with pytest.raises(SettingsError, match=f"--set(.|\n)*({words})"):
            load_config(TINY, [f"seed={text}"])


def test_a_file_that_is_too_large_or_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "strange.yaml"
    path.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(SettingsError, match="at most 1048576 bytes"):
        load_config(path, [])
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_config(path, [])


@pytest.mark.timeout(20)
def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/tty"), tmp_path):
        with pytest.raises(SettingsError, match=r"cannot be read: (expected a regular file|No such)"):
            load_config(path, [])


def test_aliases_and_merges_within_bounds_are_accepted(tmp_path: Path) -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}
    assert parse_yaml("") is None
    with pytest.raises(YamlRefused, match="line 3"):
        parse_yaml("a: 1\nb: [")


def test_a_change_of_a_thousand_sections_is_refused() -> None:
    with pytest.raises(SettingsError, match="at most 32 sections"):
        load_config(TINY, [".".join("a" * 5000) + "=1"])

"""Files of strangers, faulty child: their texts on a terminal are shown without control codes."""

from __future__ import annotations

import ast
import builtins
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from mora_launch.cli import cli
from mora_launch.terminal import Console, write_json
from mora_runtime.files.shown_text import shown, shown_line
from rich.live import Live
from rich.panel import Panel
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parents[3]
EVIL = (
    "a cat\x1b]0;owned\x07\x1b[2J\x1b[1;1H\x9b2J\x9d0;owned\x9c\rhidden\x08\x0b\x0c\x7f\x00\u202egpj\u2066\u2069 "
    "[link=http://e.vil]x[/link]"
)
FORBIDDEN = {chr(code) for code in [*range(9), *range(11, 27), *range(28, 32), *range(127, 160)]} | set("\u202e\u2066")
OURS = re.compile(r"\x1b\[([0-9;]*m|\?25[lh]|2K|1A)")  # colours, and what redraws a bar


def plain(written: str) -> str:
    """The output without rich's own control codes; no others may remain."""
    written = OURS.sub("", written)
    assert "\x1b" not in written, written
    assert not (set(written) - {"\r"}) & FORBIDDEN, written
    return written


@pytest.fixture
def screen() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, color_system="standard", width=200, soft_wrap=True), file


def test_a_line_is_shown_and_not_obeyed(screen: tuple[Console, io.StringIO]) -> None:
    console, file = screen
    console.print(EVIL)
    console.print(EVIL, markup=False)
    console.print(f"mora: {EVIL}", style="red")
    console.print(Text(EVIL, style="bold"))
    console.print(Panel(EVIL))
    written = file.getvalue()
    assert "\x1b[31m" in written, "rich's own styling works"
    assert "\r" not in written
    text = plain(written)
    assert text.count("a cat") == 5
    assert "]0;owned" in text
    assert "[link=http://e.vil]" in text, "markup in foreign text is text"


def test_tables_bars_and_live_screens_are_cleaned_too(screen: tuple[Console, io.StringIO]) -> None:
    console, file = screen
    table = Table("name", EVIL, title=EVIL, caption=EVIL)
    table.add_row(EVIL, Text(EVIL))
    console.print(table)
    with Live(Text(EVIL), console=console, auto_refresh=False) as live:
        live.update(table, refresh=True)
    with Progress(TextColumn("{task.fields[line]}", markup=False), console=console, auto_refresh=False) as bar:
        bar.add_task("x", line=EVIL)
        bar.refresh()
    with console.status(Text(EVIL)):
        pass
    plain(file.getvalue())


def test_a_question_is_cleaned_too(screen: tuple[Console, io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    console, file = screen
    asked: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda prompt="": asked.append(prompt) or "yes")
    assert console.input(EVIL, markup=False) == "yes"
    assert asked == [""], "the question goes through the console"
    assert "a cat" in plain(file.getvalue())


def test_json_for_programs_contains_no_control_characters(screen: tuple[Console, io.StringIO]) -> None:
    console, file = screen
    write_json(console, {"prompt": EVIL})
    assert file.getvalue().replace("\n", "").isprintable()


def test_names_of_odd_bytes_can_be_written(tmp_path: Path) -> None:
    name = b"a\x9b2Jb\xff.yaml".decode("utf-8", "surrogateescape")
    assert shown(name).encode("utf-8")
    code = f"from mora_launch.terminal import terminal; terminal().print({name!r})"
    for encoding in ("utf-8", "ascii:surrogateescape", "latin-1:surrogateescape"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=False, env={"PYTHONIOENCODING": encoding}
        )
        assert b"\x9b" not in done.stdout
        if encoding == "utf-8":
            assert done.returncode == 0, done.stderr


def test_newlines_tabs_and_other_alphabets_are_kept() -> None:
    for text in ("two\nlines\tand a tab", "Grüße, 你好, שלום, 👩‍👩‍👧", ""):
        assert shown(text) == text
    assert shown_line("two\nlines\tand  \x1b[31mmore") == "two lines and [31mmore"
    assert shown_line("x" * 1000, 20) == "x" * 17 + "..."


@pytest.mark.parametrize(
    "words",
    [["train", EVIL.replace("\x00", "")], ["generate", EVIL.replace("\x00", "")], ["checkpoint", "list", "\x1b[2J"]],
)  # fmt: skip
def test_arguments_of_the_command_line_are_shown_without_control_codes(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mora_launch", *words], capture_output=True, check=False, cwd=tmp_path, timeout=120
    )
    assert done.returncode in (1, 2)
    text = (done.stdout + done.stderr).decode()
    assert text.strip()
    assert not set(text) & (FORBIDDEN | {"\x1b"})


def test_unexpected_errors_are_cleaned_too() -> None:
    code = (
        "import logging, threading\n"
        "from mora_trainer.terminal import clean_tracebacks\n"
        "clean_tracebacks()\n"
        f"evil = {EVIL!r}\n"
        "logging.getLogger('x').warning('warned: %s', evil)\n"
        "thread = threading.Thread(target=lambda: 1 / 0 if len(evil) < 3 else exec('raise ValueError(evil)'))\n"
        "thread.start(); thread.join()\n"
        "raise ValueError(evil)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    text = done.stderr.decode()
    assert text.count("ValueError: a cat") == 2
    assert "warned: a cat" in text
    assert not set(text) & (FORBIDDEN | {"\x1b"})
    assert done.returncode == 1


def test_a_refused_configuration_is_shown_without_control_codes(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text('"\\e[2J": 1\n')
    result = CliRunner().invoke(cli, ["train", str(tmp_path / "evil.yaml")])
    assert result.exception is not None
    file = io.StringIO()
    Console(file=file, force_terminal=True).print(f"mora: {result.exception}", style="red")
    plain(file.getvalue())


def test_no_module_makes_another_console() -> None:
    for folder in ("launch", "trainer", "data", "benchmarks", "runtime"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name == "terminal.py" and path.parent.name == "mora_trainer":
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            from_rich = {
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module == "rich.console"
                for alias in node.names
            }
            makes = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
            ]
            assert not (makes and "Console" in from_rich), f"{path}: make mora_trainer.terminal.Console instead"

"""`mora config`."""

from __future__ import annotations

from pathlib import Path

import click

from mora_launch.cli.options import changes_option, console


@click.command(epilog="Example: ./mora config configs/tiny.yaml training")
@click.argument("words", nargs=-1, metavar="[CONFIG] [KEY]")
@changes_option
@click.option("--markdown", is_flag=True, help="Print docs/configuration.md, with the options of all kinds.")
def config(words: tuple[str, ...], changes: tuple[str, ...], markdown: bool) -> None:
    """Explain the keys of a configuration: type, default, meaning; with CONFIG also their values.

    KEY is a key or a section, for example training.batch_size or agents.image.options.
    """
    from mora_launch.config.train_config import load_config
    from mora_launch.explaining.listing import explained, explained_config

    if markdown:
        _print_page()
        return
    file, key = _file_and_key(words)
    if file is None:
        if changes:
            raise click.UsageError("--set needs CONFIG, the file whose values it changes")
        lines = explained(key, console.width)
    else:
        lines = explained_config(load_config(file, changes), key, console.width)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _file_and_key(words: tuple[str, ...]) -> tuple[Path | None, str | None]:
    """Tell the file from the key: a single word is a file if its name ends like one."""
    if len(words) > 2:
        raise click.UsageError(f"expected at most CONFIG and KEY, got {len(words)} words")
    if len(words) == 2:
        return Path(words[0]), words[1]
    if not words:
        return None, None
    is_file = Path(words[0]).suffix in (".yaml", ".yml", ".json")
    return (Path(words[0]), None) if is_file else (None, words[0])


def _print_page() -> None:
    from mora_launch.environments.build import ensure_environments
    from mora_launch.environments.catalog import checkout_environments
    from mora_launch.explaining.page import page

    environments = list(checkout_environments().values())
    ensure_environments(environments)
    console.file.write(page(environments))

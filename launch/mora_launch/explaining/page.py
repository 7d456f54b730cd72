"""docs/configuration.md, generated: every key of a configuration, and every option of the checkout's kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from mora_environment.keys.documented_keys import DocumentedKey

from mora_launch.environments.environment import Environment
from mora_launch.explaining.kind_options import ask_kinds
from mora_launch.explaining.sections import Section, all_sections

_HEAD = """\
# Configuration

Every key with its type, its default and what it means, from the code; `./mora config --markdown` writes this page.
`./mora config KEY` prints a key or a section, `./mora config CONFIG` the values of a configuration, and
`./mora config CONFIG KEY` both. `--set KEY=VALUE` of any command changes a value.

In headings, `NAME` stands for a name that you choose and `[]` for an element of a list. A key without a default is
required. `null` in YAML is none.
"""


def page(environments: Sequence[Environment]) -> str:
    """The page, with the options of all kinds of these environments, which must be built."""
    lines = [_HEAD]
    for section in all_sections():
        lines += _section(section)
    for environment in environments:
        for kind, options in ask_kinds(environment).items():
            lines += [f"## Options of kind `{kind}`", "", f"Environment `{environment.name}`. {options.about}", ""]
            lines += _table(options.keys)
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"## `{section.path}`" if section.path else "## Top level"
    yield ""
    if section.same_as is not None:
        more = " and these" if section.keys else ""
        yield f"{section.about} It has the keys of `{section.same_as}`{more}."
    else:
        yield section.about
    yield ""
    yield from _table(section.keys)


def _table(keys: Sequence[DocumentedKey]) -> Iterator[str]:
    if not keys:
        return
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key in keys:
        default = "" if key.is_required else f"`{_default(key.default)}`"
        meaning = key.meaning.replace("None", "null").replace("|", "\\|")
        yield f"| `{key.name}` | {key.type} | {default} | {meaning} |"
    yield ""


def _default(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("|", "\\|")

"""Pages that are written to a file: templates in the folder `templates/` of a package, every value escaped."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates(package: str) -> Environment:
    """The templates of a package. A name that a template uses and does not get is an error."""
    templates = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    templates.filters["percent"] = _percent
    return templates


def _percent(share: float, num_digits: int = 0) -> str:
    return f"{share:.{num_digits}%}"

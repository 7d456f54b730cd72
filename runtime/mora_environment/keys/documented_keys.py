"""The keys of a settings class in words, for people: type, default and meaning.

A key's meaning is the comment in its class, after the field or directly above it, so it is written once, where the
code is read. Its type and limits come from the class's JSON schema.
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from mora_runtime.schema import Settings
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_SIMPLE = {"boolean": "true or false", "string": "text", "null": "null", "object": "mapping"}


class DocumentedKey(Settings):
    """One key of a settings class."""

    name: str
    type: str  # in words
    is_required: bool
    default: Any = None  # as in JSON
    meaning: str = ""


def documented_keys(kind: type[BaseModel]) -> list[DocumentedKey]:
    """The keys of a class, without those of the classes in it."""
    comments = _comments(kind)
    found = []
    for name, field in kind.model_fields.items():
        adapter: TypeAdapter[Any] = TypeAdapter(_annotated(field))
        default = field.get_default(call_default_factory=True)
        is_required = default is PydanticUndefined
        found.append(
            DocumentedKey(
                name=name,
                type=_in_words(adapter.json_schema()),
                is_required=is_required,
                default=None if is_required else adapter.dump_python(default, mode="json"),
                meaning=comments.get(name, ""),
            )
        )
    return found


def _annotated(field: FieldInfo) -> Any:
    """The type of a field with its limits."""
    annotated: Any = Annotated
    parts = (field.annotation, *field.metadata)
    return annotated[parts] if field.metadata else field.annotation


def _comments(kind: type[BaseModel]) -> dict[str, str]:
    """The comment of each field, also of the fields of base classes."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if issubclass(each, BaseModel) and each.__module__ != BaseModel.__module__:
            found |= dict(_comments_in(textwrap.dedent(inspect.getsource(each))))
    return found


def _comments_in(source: str) -> Iterator[tuple[str, str]]:
    """Name and comment of each field of the class in `source`; its comment may be above it or at its end."""
    texts: dict[int, str] = {}  # by line
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# type:", "# fmt:", "# noqa")):
            texts[token.start[0]] = token.string.lstrip("# ").rstrip()
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            first = statement.lineno
            while first - 1 in texts and lines[first - 2].lstrip().startswith("#"):
                first -= 1
            numbers = range(first, (statement.end_lineno or statement.lineno) + 1)
            yield statement.target.id, " ".join(texts[number] for number in numbers if number in texts)


def _in_words(schema: dict[str, Any], definitions: dict[str, Any] | None = None) -> str:
    """What a value may be, of a JSON schema."""
    known = definitions if definitions is not None else schema.get("$defs", {})
    if "$ref" in schema:
        found = known[schema["$ref"].rpartition("/")[2]]
        return "section" if "properties" in found else _in_words(found, known)
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return _in_words(schema["allOf"][0], known)
    if "anyOf" in schema or "oneOf" in schema:
        words = [_in_words(each, known) for each in schema.get("anyOf") or schema["oneOf"]]
        return " or ".join(dict.fromkeys(words))
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"][:-1])) + f" or {schema['enum'][-1]}"
    category = str(schema.get("type"))
    if category in ("integer", "number"):
        return category + _limits(schema)
    if category == "array":
        return _list_in_words(schema, known)
    if category == "object" and "properties" in schema:
        return "section"
    if category == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping of names to {_plural(_in_words(schema['additionalProperties'], known))}"
    return _SIMPLE.get(category, "any value")


def _list_in_words(schema: dict[str, Any], known: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        words = [_in_words(each, known) for each in schema["prefixItems"]]
        if len(set(words)) == 1:
            return f"list of {len(words)}: {words[0]}"
        return f"list of {', '.join(words)}"
    least = f", {schema['minItems']} or more" if schema.get("minItems") else ""
    return f"list{least}: {_in_words(schema.get('items', {}), known)}"


def _plural(words: str) -> str:
    return {"section": "sections", "text": "texts"}.get(words, words)


def _limits(schema: dict[str, Any]) -> str:
    """Limits of a number, after its type."""
    least, most = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    words = [
        f"{least:g} to {most:g}" if least is not None and most is not None else "",
        f"{least:g} or more" if least is not None and most is None else "",
        f"above {above:g}" if above is not None else "",
        f"at most {most:g}" if most is not None and least is None else "",
        f"below {below:g}" if below is not None else "",
        f"a multiple of {schema['multipleOf']:g}" if "multipleOf" in schema else "",
    ]
    return "".join(f", {word}" for word in words if word)


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes in a field's type."""
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in sections_in(argument)]


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring in one line."""
    return " ".join((docstring or "").strip().partition("\n\n")[0].split())

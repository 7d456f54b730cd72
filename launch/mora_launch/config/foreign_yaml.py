"""Untrusted YAML, from configurations and `--set`: limits its size, and reports errors in one line.

A short YAML text can expand to a huge value: an alias repeats what its anchor names, so aliases of aliases turn a few
lines into 9^8 values. Therefore the events of a text are counted before any value is constructed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from mora_runtime.files.foreign_file import read_foreign
from mora_runtime.files.shown_text import shown_line

from mora_launch.limits import MAX_CONFIG_DEPTH, MAX_CONFIG_NBYTES, MAX_CONFIG_NUMBER_LENGTH, MAX_NUM_CONFIG_NODES

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge")}
_NUMBERS = {f"{_TAG}{kind}" for kind in ("int", "float", "timestamp")}


class YamlRefused(ValueError):
    """The text is not YAML, or uses features that no configuration needs."""


def read_yaml(path: Path) -> Any:
    """Return the value of a file. Raises: OSError: the file cannot be read. YamlRefused: as `parse_yaml`."""
    try:
        return parse_yaml(read_foreign(path, MAX_CONFIG_NBYTES).decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise YamlRefused("is not YAML: it is not UTF-8") from None


def parse_yaml(text: str) -> Any:
    """Return the value of a text.

    Raises:
        YamlRefused: the text is refused; the message is one line and says where.
    """
    if any(line.startswith("%") for line in text.splitlines()):
        raise YamlRefused("expected no line that begins with %: no configuration needs a directive")
    try:
        _check_events(text)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_node(node, {}, set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise YamlRefused(f"is not YAML: {shown_line(str(error))}") from None
    except RecursionError:
        raise YamlRefused(f"expected at most {MAX_CONFIG_DEPTH} levels of nesting, got more") from None
    except YamlRefused:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:  # a scalar that contradicts its tag
        raise YamlRefused(f"is not YAML: a value does not match its tag: {shown_line(repr(error), 100)}") from None


def _check_events(text: str) -> None:
    """Count nodes and levels before any node is built: unlike the parser, the later stages are recursive."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if isinstance(event, yaml.events.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1
        if depth > MAX_CONFIG_DEPTH:
            raise YamlRefused(f"expected at most {MAX_CONFIG_DEPTH} levels of nesting, got more{_at(event)}")
        if number > 2 * MAX_NUM_CONFIG_NODES:
            raise YamlRefused(f"expected at most {MAX_NUM_CONFIG_NODES} values, got more")


def _check_node(node: Any, seen: dict[int, tuple[int, int]], open_: set[int]) -> tuple[int, int]:
    """Return the number of values and of levels below a node, with aliases expanded.

    Args:
        seen: results for nodes that have been counted, by identity.
        open_: identities of the nodes that contain this one.
    """
    if id(node) in open_:
        raise YamlRefused(f"an alias contains itself{_at(node)}")
    if id(node) in seen:
        return seen[id(node)]
    size, height = 1, 0
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node)
    else:
        open_.add(id(node))
        counted = [_check_node(child, seen, open_) for child in _children(node)]
        open_.discard(id(node))
        size += sum(each[0] for each in counted)
        height = 1 + max((each[1] for each in counted), default=0)
    if size > MAX_NUM_CONFIG_NODES:
        raise YamlRefused(f"expected at most {MAX_NUM_CONFIG_NODES} values, got more by aliases{_at(node)}")
    if height > MAX_CONFIG_DEPTH:
        raise YamlRefused(f"expected at most {MAX_CONFIG_DEPTH} levels of nesting, got more by aliases{_at(node)}")
    seen[id(node)] = size, height
    return size, height


def _children(node: Any) -> list[Any]:
    if node.tag not in (f"{_TAG}seq", f"{_TAG}map"):
        raise YamlRefused(f"the tag {shown_line(node.tag, 60)} is not known{_at(node)}")
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        return [each for pair in node.value for each in pair]
    return list(node.value)


def _check_scalar(node: Any) -> None:
    if node.tag not in _SCALARS:
        raise YamlRefused(f"the tag {shown_line(node.tag, 60)} is not known{_at(node)}")
    if node.tag in _NUMBERS and len(node.value) > MAX_CONFIG_NUMBER_LENGTH:
        raise YamlRefused(f"expected numbers of at most {MAX_CONFIG_NUMBER_LENGTH} digits, got a longer one{_at(node)}")
    if not node.value.isascii():
        try:
            node.value.encode("utf-8")
        except UnicodeEncodeError:
            raise YamlRefused(f"contains half of a surrogate pair, which is not text{_at(node)}") from None


def _check_keys(node: Any) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag == f"{_TAG}merge":
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
            shown = shown_line(str(key.value), 60) if isinstance(key, yaml.ScalarNode) else "a list or section"
            raise YamlRefused(f"expected strings as keys, got {shown}{_at(key)}; put it in quotes")
        if key.value in seen:
            raise YamlRefused(f"the key `{shown_line(key.value, 60)}` occurs twice{_at(key)}")
        seen.add(key.value)


def _at(thing: Any) -> str:
    mark = getattr(thing, "start_mark", None)
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"

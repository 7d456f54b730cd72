"""Turns an upstream `config.json` into a frozen dataclass, and refuses any unknown key by name.

The configs of transformer and autoencoder use it. The set of keys is closed, because an ignored key could silently
load another network, or one with a wrong interpolation scale.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar, Self

from mora_env_opensora.models.errors import ConfigError

OMIT = object()
# diffusers' ConfigMixin writes these in addition to the model's keys.
_BOOKKEEPING = frozenset({"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values"})


class ConfigSchema:
    """Base of the config dataclasses: `parse` and `to_dict` over upstream's keys.

    `fixed` maps upstream's keys for which only some values are supported to these values; the first is written back.
    `ignored` maps keys without influence on the network to the value that is written back (`OMIT`: none).
    """

    model_name: ClassVar[str]
    accepted_class_names: ClassVar[tuple[str, ...]]
    fixed: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    ignored: ClassVar[Mapping[str, object]] = {}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build from the keys of a `config.json`.

        Raises:
            ConfigError: an unknown key, an unsupported value, a missing key or a value of the wrong type.
        """
        own = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
        class_name = values.get("_class_name")
        if class_name is not None and class_name not in cls.accepted_class_names:
            accepted = " or ".join(cls.accepted_class_names)
            raise ConfigError(f"{cls.model_name}: expected a config of {accepted}, got one of {class_name!r}")
        known = own.keys() | cls.fixed.keys() | cls.ignored.keys() | _BOOKKEEPING
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean `{near[0]}`?" if near else ""
                raise ConfigError(f"{cls.model_name}: unknown config key `{key}`{hint}")
        for key, supported in cls.fixed.items():
            if key in values and not any(_same(values[key], value) for value in supported):
                choices = ", ".join(repr(value) for value in supported)
                raise ConfigError(f"{cls.model_name}: `{key}` = {values[key]!r} is not supported; supported: {choices}")
        missing = [
            name
            for name, field in own.items()
            if name not in values and field.default is MISSING and field.default_factory is MISSING
        ]
        if missing:
            raise ConfigError(f"{cls.model_name}: config lacks {', '.join(f'`{name}`' for name in missing)}")
        return cls(**{name: _freeze(values[name]) for name in own if name in values})

    def to_dict(self) -> dict[str, Any]:
        """Upstream's keys, ready for `json.dump` next to `_class_name`."""
        own = {field.name: _thaw(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]
        fixed = {key: _thaw(supported[0]) for key, supported in self.fixed.items()}
        return own | fixed | {key: _thaw(value) for key, value in self.ignored.items() if value is not OMIT}

    def require(self, holds: bool, key: str, expected: str) -> None:
        """Raise a ConfigError naming `key` unless `holds`."""
        if not holds:
            raise ConfigError(f"{self.model_name}: `{key}` = {getattr(self, key)!r}; expected {expected}")

    def require_positive_int(self, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            self.require(type(value) is int and value > 0, key, "a positive integer")

    def require_bool(self, *keys: str) -> None:
        for key in keys:
            self.require(type(getattr(self, key)) is bool, key, "true or false")


def _same(value: object, supported: object) -> bool:
    """Equality in which 0 equals 0.0 but not False."""
    return value == supported and isinstance(value, bool) == isinstance(supported, bool)


def _freeze(value: Any) -> Any:
    return tuple(_freeze(item) for item in value) if isinstance(value, (list, tuple)) else value


def _thaw(value: Any) -> Any:
    return [_thaw(item) for item in value] if isinstance(value, tuple) else value

"""Model folders: whether they exist, their configurations, and how many parameters they contain.

Reads only the headers of safetensors files, so it needs neither torch nor the weights in memory.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mora_runtime.errors import SettingsError
from mora_runtime.schema import nearest_name

from mora_environment.component import Component
from mora_environment.weights.presence import cached_folder

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MAX_HEADER_NBYTES = 100 << 20


def model_components(
    model: str,
    names: Sequence[str],
    *,
    trainable: str,
    dtype_nbytes: int,
    published: Mapping[str, Mapping[str, int]],
    unloaded: Collection[str] = (),
) -> list[Component]:
    """Components of a model in diffusers' layout (one folder each), counted on disk or taken from `published`.

    Args:
        unloaded: names of those that leave memory before the first step.

    Raises:
        SettingsError: the folder, or one of its components, is missing and the name is not a known Hub id.
    """
    folder = Path(model)
    if folder.is_dir():
        counts = {name: count_parameters(folder / name, model) for name in names}
    else:
        counts = {name: published_count(model, name, published) for name in names}
    return [
        Component(
            name=name,
            num_parameters=count,
            dtype_nbytes=dtype_nbytes,
            trainable=name == trainable,
            is_unloaded=name in unloaded,
        )
        for name, count in counts.items()
    ]


def published_count(model: str, name: str, published: Mapping[str, Mapping[str, int]]) -> int:
    """Number of parameters of a component on the Hub: counted in the Hub's cache, else as published.

    Raises:
        SettingsError: `model` is neither in the cache nor a known Hub id.
    """
    counted = _cached_count(model, name)
    if counted is not None:
        return counted
    if model in published:
        return published[model].get(name, 0)
    nearest = nearest_name(model, published)
    hint = f"; did you mean the Hub id `{nearest}`?" if nearest else "."
    kind = "folder or known Hub id" if _HUB_ID.fullmatch(model) else "folder"
    raise SettingsError(
        f"`{model}`: no such {kind}{hint} Expected a folder with {name}/ in it, absolute or relative to the checkout"
    )


def _cached_count(model: str, name: str) -> int | None:
    """Count a component in the Hub's cache: in the folder of its name, or in the one that the Hub id names itself."""
    found = cached_folder(model)
    for folder in () if found is None else (found / name, found):
        files = [path for path in sorted(folder.glob("*.safetensors")) if "." not in path.stem]  # not `.fp16`
        if files:
            return sum(_num_elements(path) for path in files)
    return None


def config_in(folder: Path, otherwise: dict[str, Any], *, name: str = "config") -> dict[str, Any]:
    """The configuration in a folder of diffusers, or `otherwise` where the folder is a name on the Hub or has none."""
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else otherwise


def config_of(model: Any) -> dict[str, Any]:
    """The config.json of a model of diffusers, as diffusers writes it."""
    config = {name: value for name, value in dict(model.config).items() if not name.startswith("_")}
    return {"_class_name": type(model).__name__, **config}


def count_parameters(folder: Path, shown: str) -> int:
    """Number of elements in all safetensors files of a component's folder."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SettingsError(f"`{shown}`: expected {folder.name}/*.safetensors in it, found none; is it complete?")
    return sum(_num_elements(path) for path in files)


def _num_elements(path: Path) -> int:
    with open(path, "rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        if size > _MAX_HEADER_NBYTES:
            raise SettingsError(f"{path.name}: is not a safetensors file (its header claims {size} bytes)")
        try:
            header: dict[str, Any] = json.loads(handle.read(size))
        except ValueError:
            raise SettingsError(f"{path.name}: is not a safetensors file (its header is not JSON)") from None
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")

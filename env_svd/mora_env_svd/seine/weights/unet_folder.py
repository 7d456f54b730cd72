"""Finds the UNet's weights, and converts upstream's `seine.pt` to safetensors once.

Only `torch.load(weights_only=True)` reads the pickle, which refuses everything but tensors and plain values. The
converted folder is in the cache of converted weights, named by the SHA-256 of pickle and config. It appears whole or
not at all, so servers may convert at the same time: one does, the others wait for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mora_environment.file_digests import FileDigests
from mora_environment.weights.converted_folder import converted_root
from mora_environment.weights.presence import cached_folder
from mora_environment.weights.safetensors_stream import write_stream
from mora_environment.weights.shared_lock import lock_where_possible
from mora_runtime.files.durable_files import sync, write_text
from torch import Tensor

from mora_env_svd.errors import WeightsFileError
from mora_env_svd.seine.models import SeineConfig, SeineUNet
from mora_env_svd.seine.weights.weights_folder import CONFIG_NAME, WEIGHTS_NAME, check_fit, completed

PICKLE_NAME = "seine.pt"
_WEIGHTS_KEY = "ema"
_LOCK_DEADLINE_S = 3600.0  # another server may be converting the same file
_log = logging.getLogger(__name__)


def unet_folder(name: str) -> Path:
    """The folder with `config.json` and safetensors for a folder or Hub id, converted if it has only `seine.pt`.

    It downloads nothing, so that a run starts the same with and without a network.

    Raises:
        WeightsFileError: there are no weights, or `seine.pt` is broken, contains a program or does not fit.
    """
    folder = Path(name) if Path(name).is_dir() else cached_folder(name)
    if folder is not None and (folder / WEIGHTS_NAME).is_file():
        return folder
    if folder is not None and (folder / PICKLE_NAME).is_file():
        return _converted(folder / PICKLE_NAME)
    raise WeightsFileError(
        f"`{name}`: expected a folder, or a Hub id that has been downloaded, with {WEIGHTS_NAME} or {PICKLE_NAME} in "
        "it; got neither. Run `./mora models fetch CONFIG`, or give the folder"
    )


def _converted(pickle: Path) -> Path:
    config = _config_of(pickle.parent)
    root = converted_root()
    root.mkdir(parents=True, exist_ok=True)
    digest = FileDigests(root / "seine-digests.json").sha256(pickle)
    name = hashlib.sha256(f"{digest}\0{json.dumps(config, sort_keys=True)}".encode()).hexdigest()[:32]
    final = root / f"seine--{name}"
    with open(root / f".{final.name}.lock", "w", encoding="utf-8") as lock:
        lock_where_possible(lock.fileno(), _LOCK_DEADLINE_S, shown=lock.name)
        if final.is_dir():
            return final
        for abandoned in root.glob(f".{final.name}.*.partial"):
            shutil.rmtree(abandoned)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=root))
        try:
            _write(partial, pickle, config)
            partial.chmod(0o755)
            partial.rename(final)
            sync(root)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def _write(folder: Path, pickle: Path, config: Mapping[str, Any]) -> None:
    _log.info("converting %s to safetensors, once", pickle)
    with torch.device("meta"):
        own = SeineUNet.from_config(config).state_dict()
    weights = completed(own, _weights_of(pickle))
    check_fit(own, weights, f"`{pickle.name}`")
    write_stream(folder / WEIGHTS_NAME, weights, torch.float32)
    sync(folder / WEIGHTS_NAME)
    write_text(folder / CONFIG_NAME, json.dumps(dict(config), indent=2, sort_keys=True) + "\n")


def _weights_of(pickle: Path) -> Mapping[str, Tensor]:
    is_mappable = zipfile.is_zipfile(pickle)  # torch's format of before version 1.6 has to be read whole
    try:
        content: Any = torch.load(pickle, map_location="cpu", mmap=is_mappable, weights_only=True)
    except Exception as error:  # broken and foreign files make torch raise many types
        raise WeightsFileError(
            f"`{pickle.name}` cannot be loaded as tensors only ({type(error).__name__}), so it is broken or contains a "
            "program, which was not run; download it again from upstream"
        ) from None
    weights = content.get(_WEIGHTS_KEY) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        shown = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise WeightsFileError(f"`{pickle.name}`: expected tensors under `{_WEIGHTS_KEY}`, got {shown[:200]}")
    return weights


def _config_of(folder: Path) -> dict[str, Any]:
    """The config next to the pickle; upstream has none, which means the published network."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        return SeineConfig().to_dict()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsFileError(f"`{folder.name}/{CONFIG_NAME}` cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise WeightsFileError(f"`{folder.name}/{CONFIG_NAME}`: expected a JSON object, got {type(values).__name__}")
    return SeineConfig.parse(values).to_dict()

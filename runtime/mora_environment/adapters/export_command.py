"""The command `export`: writes the LoRA adapters of an agent in a format of other libraries.

The launcher asks for it, because it has neither the agent's model nor peft.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mora_runtime.errors import MoraError, SettingsError, StorageError
from mora_runtime.schema import Settings
from mora_runtime.wire.messages import PROTOCOL_VERSION

from mora_environment.kind import Kind
from mora_environment.options_command import read_request


def answer_export(kinds: Mapping[str, Kind], package: str, request: dict[str, Any]) -> dict[str, Any]:
    """Write adapters in another format.

    Args:
        request: as for the command `options`; with `format`, one of `diffusers-lora`, `peft` and `merged`; `folder`,
            the adapters of a checkpoint, whose hashes the launcher has checked; and `target`, an empty folder.

    Returns:
        `{"error"}` or `{}`. Always with `protocol`, the version of the wire protocol of this environment's runtime.
    """
    # models are only loaded from this machine, and libraries may print, but not into the answer
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    answer: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):
        try:
            kind, options = read_request(kinds, package, request)
            _export(kinds, package, kind, options, request)
        except MoraError as error:
            answer = {"error": str(error)}
    return {"protocol": PROTOCOL_VERSION, **answer}


def _export(kinds: Mapping[str, Kind], package: str, kind: Kind, options: Settings, request: Mapping[str, Any]) -> None:
    from mora_environment.adapters.adapter_formats import write_diffusers, write_peft  # imports torch

    source, target = Path(request["folder"]), Path(request["target"])
    try:
        if request["format"] == "merged":
            _write_merged(kinds, package, options, request, source, target)
        elif request["format"] == "peft":
            write_peft(source, target, kind.weights_folder_of(options))
        elif kind.diffusers_component is None:
            raise SettingsError(
                f"{request['source']}: kind `{request['kind']}` has no pipeline in diffusers that could load its "
                "adapters; expected the format `peft` or `merged`"
            )
        else:
            write_diffusers(source, target, kind.diffusers_component)
    except OSError as error:
        raise StorageError(f"{request['source']}: {error.strerror or error}") from None


def _write_merged(
    kinds: Mapping[str, Kind], package: str, options: Settings, request: Mapping[str, Any], source: Path, target: Path
) -> None:
    """Load the agent with its adapters, and write the sums as whole weights."""
    import torch
    from mora_training.adapters import CONFIG_FILE, load_adapters, merged_weights
    from mora_training.optimizer_agent import WEIGHTS_FILE
    from mora_training.shards import write_tensors

    from mora_environment.promised_methods import check_trainable
    from mora_environment.server import AgentBuilder

    name = str(request["kind"])
    content = options.model_dump(mode="json")
    agent: Any = AgentBuilder(kinds, package).make(name, content, torch.device("cpu"), source=str(request["source"]))
    check_trainable(agent, kinds[name], f"{package}: kind `{name}`")
    load_adapters(agent.module(), source)
    write_tensors(target / WEIGHTS_FILE, merged_weights(agent.module()))
    config = json.dumps(agent.model_config(), indent=2, sort_keys=True)
    (target / CONFIG_FILE).write_text(config, encoding="utf-8")

"""The formats of `mora checkpoint export`, and which agents of a checkpoint can be exported in each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

from mora_runtime.errors import CheckpointError
from mora_runtime.schema import nearest_name
from mora_trainer.checkpoint.commit_record import CheckpointInfo
from mora_training.training_settings import ADAPTER_FILE


class ExportFormat(StrEnum):
    """How weights leave Mora."""

    NATIVE = "native"  # as the checkpoint has them
    DIFFUSERS_LORA = "diffusers-lora"  # the file that `load_lora_weights` of diffusers reads
    PEFT = "peft"  # the folder that `PeftModel.from_pretrained` reads
    MERGED = "merged"  # whole weights, with adapters added to those of the model

    @property
    def is_of_adapters(self) -> bool:
        """Whether it can hold adapters only, no whole weights."""
        return self in (ExportFormat.DIFFUSERS_LORA, ExportFormat.PEFT)

    def how_to_load(self, folder: str) -> str | None:
        """Return the line of Python that loads an exported folder; None where it depends on the model."""
        return {
            ExportFormat.DIFFUSERS_LORA: f"pipeline.load_lora_weights({folder!r})",
            ExportFormat.PEFT: f"PeftModel.from_pretrained(model, {folder!r})",
        }.get(self)


def adapted_agents(info: CheckpointInfo, part: str) -> set[str]:
    """Return the agents of which a part of a checkpoint, `weights` or `ema`, has LoRA adapters."""
    found = (file.path.split("/") for file in info.files)
    return {path[0] for path in found if path[1:] == [part, ADAPTER_FILE]}


def exported_agents(
    info: CheckpointInfo, part: str, chosen: ExportFormat, named: Collection[str] = ()
) -> Sequence[str]:
    """Return the agents to export.

    Args:
        named: by the user; empty = all that can be exported in the format.

    Raises:
        CheckpointError: the checkpoint has no such part or agent, or no adapters for a format of adapters.
    """
    paths = (file.path.split("/") for file in info.files)
    agents = sorted({path[0] for path in paths if len(path) > 2 and path[1] == part})
    if not agents:
        raise CheckpointError(f"{info.folder}: has no `{part}` of any agent; did the run save them?")
    for name in named:
        if name not in agents:
            nearest = nearest_name(name, agents)
            hint = f"; did you mean `{nearest}`?" if nearest else ""
            raise CheckpointError(
                f"{info.folder}: has no `{part}` of an agent `{name}`{hint} (has {', '.join(agents)})"
            )
    wanted = [name for name in agents if name in named or not named]
    if not chosen.is_of_adapters:
        return wanted
    adapted = adapted_agents(info, part)
    whole = [name for name in wanted if name not in adapted]
    if whole and (named or len(whole) == len(wanted)):
        raise CheckpointError(
            f"{info.folder}: {', '.join(whole)}: expected LoRA adapters for the format `{chosen.value}`, got whole "
            "weights; export them with `--format native`"
        )
    return [name for name in wanted if name in adapted]

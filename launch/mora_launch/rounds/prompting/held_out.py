"""The held-out prompts of a run, on which its model is measured before and after each round and never trained."""

from __future__ import annotations

from mora_launch.config.train_config import TrainConfig
from mora_launch.rounds.prompting.prompts import new_prompts
from mora_launch.rounds.settings import PromptSettings, SynthesisSettings


def held_out_prompts(config: TrainConfig) -> list[str]:
    """Return them, always the same ones for a configuration.

    Raises:
        RoundError: their source has too few.
        SettingsError: their file cannot be read.
    """
    synthesis = config.synthesis
    return new_prompts(
        _settings(synthesis), number=synthesis.num_evaluation_prompts, seed=f"{config.seed}/held out", used=[],
        is_held_out=True,
    )  # fmt: skip


def _settings(synthesis: SynthesisSettings) -> PromptSettings:
    """Where they come from: their file, the shapes, or else the grammar, whatever the source of the other prompts."""
    if synthesis.evaluation_prompts is not None:
        return synthesis.prompts.model_copy(update={"source": "file", "file": synthesis.evaluation_prompts})
    source = "shapes" if synthesis.prompts.source == "shapes" else "grammar"
    return synthesis.prompts.model_copy(update={"source": source})

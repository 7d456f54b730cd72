"""The trainings that are compared: the ablations of the paper's table 5, and each agent alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from mora_trainer.settings import ModulationSettings


@dataclass(frozen=True)
class Variant:
    """What distinguishes a training; all but `learned_rates` are settings of a configuration."""

    modulation: ModulationSettings = field(default_factory=ModulationSettings)
    scope: str = "joint"
    learned_rates: bool = False  # use the rates that `learned` begins with, alpha_i * eta_i, regardless of this alpha


REFERENCE = "learned"
VARIANTS = {
    REFERENCE: Variant(),
    "none": Variant(ModulationSettings(mode="none")),
    "none, learned's rates": Variant(ModulationSettings(mode="none"), learned_rates=True),
    "random_init": Variant(ModulationSettings(mode="random_init")),
    "learned, image only": Variant(scope="image_only"),
    "learned, video only": Variant(scope="video_only"),
}

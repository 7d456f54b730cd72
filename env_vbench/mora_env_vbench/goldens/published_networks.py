"""The published files with the networks that load them: what made weights need to be written in the same layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mora_env_vbench import published_files
from mora_env_vbench.amt.network import Amt
from mora_env_vbench.clip.network import Clip
from mora_env_vbench.clip.sizes import TextSizes, VisionSizes
from mora_env_vbench.clip.tokenizer import NUM_TOKENS
from mora_env_vbench.dino.network import Dino
from mora_env_vbench.dino.sizes import DinoSizes
from mora_env_vbench.musiq.network import Musiq
from mora_env_vbench.raft.network import Raft
from mora_env_vbench.viclip.network import Viclip
from mora_env_vbench.weights.made_file import shapes_of, write_made
from mora_env_vbench.weights.recipe import Recipe


@dataclass(frozen=True)
class Layout:
    """How a file stores the weights of a network.

    Attributes:
        within: key of the dictionary around the weights; empty = none.
        prefix: before each name.
    """

    build: Callable[[], nn.Module]
    within: str = ""
    prefix: str = ""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By name in the file."""
        return {self.prefix + name: shape for name, shape in shapes_of(self.build).items()}

    def write(self, path: Path, recipe: Recipe) -> None:
        """Write made weights of the published size."""
        write_made(path, shapes_of(self.build), recipe, prefix=self.prefix, within=self.within)


LAYOUTS: dict[str, Layout] = {
    published_files.CLIP_B.name: Layout(
        lambda: Clip(VisionSizes(224, 32, 768, 12, 512), TextSizes(77, NUM_TOKENS, 512, 12, 512))
    ),
    published_files.CLIP_L.name: Layout(
        lambda: Clip(VisionSizes(224, 14, 1024, 24, 768), TextSizes(77, NUM_TOKENS, 768, 12, 768))
    ),
    published_files.AESTHETIC_HEAD.name: Layout(lambda: nn.Linear(768, 1)),
    published_files.DINO.name: Layout(lambda: Dino(DinoSizes(16, 14, 768, 12, 12))),
    published_files.AMT.name: Layout(Amt, within="state_dict"),
    published_files.RAFT.name: Layout(Raft, prefix="module."),
    published_files.MUSIQ.name: Layout(Musiq),
    published_files.VICLIP.name: Layout(
        lambda: Viclip(VisionSizes(224, 14, 1024, 24, 768), TextSizes(32, NUM_TOKENS, 768, 12, 768), num_frames=8),
        within="model",
    ),
}

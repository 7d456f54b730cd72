"""The published files of weights: their names, sizes and licences, and where they come from. It needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mora_environment.weights.presence import cached_folder
from mora_environment.weights.weights_source import HubPlace

from mora_env_vbench.weights.errors import WeightsRefused

_MB = 1_000_000
_OPENAI = "https://openaipublic.azureedge.net/clip/models"


@dataclass(frozen=True)
class PublishedFile:
    """One file of weights.

    Attributes:
        folder: below VBench's cache directory; the file is also found without it.
        nbytes: about.
        num_parameters: that the agent loads.
        licence: of the weights.
        address: where the file can be downloaded by hand.
        hub: repository of the Hub that has the file in its root; None = there is none.
        is_commercial: False if the licence forbids commercial use.
    """

    name: str
    folder: str
    nbytes: int
    num_parameters: int
    licence: str
    address: str
    hub: str | None = None
    is_commercial: bool = True

    def find(self, weights: str) -> Path:
        """The file that an option names: itself, in a folder, or in the cache of the Hub.

        Raises:
            WeightsRefused: it is not there; the line says what to place where.
        """
        for path in self._places(weights):
            if path.is_file():
                return path
        raise WeightsRefused(
            f"weights `{weights}`: expected a file, or a folder with {self.name} in it or in {self.folder}/; "
            f"{self.how_to_get()}"
        )

    def is_there(self, weights: str) -> bool:
        return any(path.is_file() for path in self._places(weights))

    def _places(self, weights: str) -> list[Path]:
        folders = [Path(weights)] if Path(weights).is_dir() else []
        cached = cached_folder(weights) if is_hub_id(weights) else None
        folders += [] if cached is None else [cached]
        inside = [place for folder in folders for place in (folder / self.name, folder / self.folder / self.name)]
        return [Path(weights), *inside]

    def how_to_get(self) -> str:
        """How a user gets the file, in one clause."""
        told = f"download {self.address} ({self.nbytes / _MB:.3g} MB, licence {self.licence}) and place it there"
        return told if self.hub is None else f"{told}, or name `{self.hub}` instead and run `./mora models fetch`"

    def notes(self) -> list[str]:
        """Lines to show when the weights are loaded."""
        forbidden = "" if self.is_commercial else "; it forbids commercial use"
        return [f"{self.name}: licence {self.licence}{forbidden}"]


def is_hub_id(weights: str) -> bool:
    """Whether an option names a repository of the Hub: it is of that form, and no folder of this machine."""
    return HubPlace.of(weights) is not None and not Path(weights.partition("/")[0]).exists()


DINO = PublishedFile(
    name="dino_vitbase16_pretrain.pth",
    folder="dino_model",
    nbytes=343 * _MB,
    num_parameters=85_798_656,
    licence="Apache-2.0",
    address="https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
)
CLIP_B = PublishedFile(
    name="ViT-B-32.pt",
    folder="clip_model",
    nbytes=354 * _MB,
    num_parameters=151_277_313,
    licence="MIT",
    address=f"{_OPENAI}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
)
CLIP_L = PublishedFile(
    name="ViT-L-14.pt",
    folder="clip_model",
    nbytes=933 * _MB,
    num_parameters=427_616_513,
    licence="MIT",
    address=f"{_OPENAI}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
)
AESTHETIC_HEAD = PublishedFile(
    name="sa_0_4_vit_l_14_linear.pth",
    folder="aesthetic_model/emb_reader",
    nbytes=5_000,
    num_parameters=769,
    licence="MIT, as its repository says",
    address="https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
)
AMT = PublishedFile(
    name="amt-s.pth",
    folder="amt_model",
    nbytes=12 * _MB,
    num_parameters=2_990_000,
    licence="CC BY-NC 4.0",
    address="https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth",
    hub="lalala125/AMT",
    is_commercial=False,
)
RAFT = PublishedFile(
    name="raft-things.pth",
    folder="raft_model/models",
    nbytes=21 * _MB,
    num_parameters=5_260_000,
    licence="BSD-3-Clause",
    address="https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip, unpack it",
)
MUSIQ = PublishedFile(
    name="musiq_spaq_ckpt-358bb6af.pth",
    folder="pyiqa_model",
    nbytes=109 * _MB,
    num_parameters=27_100_000,
    licence="Apache-2.0, as Google published MUSIQ; the Hub's copy belongs to pyiqa, which is non-commercial",
    address="https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/musiq_spaq_ckpt-358bb6af.pth",
    hub="chaofengc/IQA-PyTorch-Weights",
)
VICLIP = PublishedFile(
    name="ViClip-InternVid-10M-FLT.pth",
    folder="ViCLIP",
    nbytes=1710 * _MB,
    num_parameters=427_600_000,
    licence="Apache-2.0, as its repository says",
    address="https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main/ViClip-InternVid-10M-FLT.pth",
    hub="OpenGVLab/VBench_Used_Models",
)
FILES = (DINO, CLIP_B, CLIP_L, AESTHETIC_HEAD, AMT, RAFT, MUSIQ, VICLIP)

"""Made weights in the published layouts, in the folders that VBench reads them from, and three clips with prompts.

`python -m benchmarks.vbench_upstream.material FOLDER` writes those that are missing, 3.4 GB.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from mora_env_vbench import clip
from mora_env_vbench.goldens.published_networks import LAYOUTS
from mora_env_vbench.published_files import AESTHETIC_HEAD, AMT, CLIP_B, CLIP_L, DINO, FILES, MUSIQ, VICLIP
from mora_env_vbench.weights.recipe import Recipe, made_clip
from torch import Tensor, nn

from benchmarks.vbench_upstream.upstream import CACHE, HUB, STYLE, STYLES, VIDEOS

_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_RECIPES = {
    CLIP_B.name: Recipe(1, half=True),
    CLIP_L.name: Recipe(2, half=True),
    AMT.name: Recipe(3, gain=0.7, one_d_weight=(0.25, 0.05)),  # pixels in 0..1, not all of them at an end
    AESTHETIC_HEAD.name: Recipe(4, special={"weight": (0.0, 1.0), "bias": (5.0, 0.02)}),  # scores that differ
    MUSIQ.name: Recipe(5, special={"head.weight": (0.0, 1.0), "head.bias": (50.0, 0.02)}),
}


@dataclass(frozen=True)
class MadeVideo:
    """A clip and what its metrics need."""

    prompt: str
    index: int
    words: str
    fps: int
    frames: Tensor


def made_videos() -> list[MadeVideo]:
    """Three clips that differ in size, length, rate and movement."""
    cat, waves = "a grey cat walking, oil painting", "waves at night, in super slow motion"
    return [
        MadeVideo(cat, 0, "oil painting", 8, made_clip(seed=11, frames=16, height=128, width=176, dx=3)),
        MadeVideo(cat, 1, "oil painting", 16, made_clip(seed=12, frames=20, height=144, width=144, noise=2)),
        MadeVideo(waves, 0, "watercolor painting", 24, made_clip(seed=13, frames=24, height=176, width=128)),
    ]


def write_videos(folder: Path) -> None:
    """Write the clips as ordinary H.264 files without colour tags, about which all decoders agree, and their styles."""
    (folder / VIDEOS).mkdir(parents=True, exist_ok=True)
    for video in made_videos():
        with av.open(str(folder / VIDEOS / f"{video.prompt}-{video.index}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=video.fps, options={"crf": "16"})
            stream.height, stream.width, stream.pix_fmt = *video.frames.shape[1:3], "yuv420p"
            for pixels in video.frames.numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    styles = {video.prompt: video.words for video in made_videos()}
    entries = [
        {"prompt_en": prompt, "dimension": [STYLE], "auxiliary_info": {STYLE: {STYLE: words}}}
        for prompt, words in styles.items()
    ]
    (folder / STYLES).write_text(json.dumps(entries))


def write_weights(folder: Path) -> None:
    """Write the eight files of weights that are not there yet, 3.4 GB, and what VBench needs next to them."""
    for number, file in enumerate(FILES):
        path = folder / CACHE / file.folder / file.name
        if not path.exists():
            recipe = _RECIPES.get(file.name, Recipe(100 + number))
            unfinished = path.with_suffix(".unfinished")
            if file in (CLIP_B, CLIP_L):
                _write_torchscript(unfinished, recipe.made(LAYOUTS[file.name].shapes()))
            else:
                LAYOUTS[file.name].write(unfinished, recipe)
            unfinished.rename(path)
    vocabulary = folder / CACHE / VICLIP.folder / _VOCABULARY
    shutil.copyfile(Path(clip.__path__[0]) / _VOCABULARY, vocabulary)
    reloaded = folder / HUB / "hub" / "checkpoints" / DINO.name  # VBench's own copy of it is never read
    reloaded.parent.mkdir(parents=True, exist_ok=True)
    if not reloaded.exists():
        reloaded.hardlink_to(folder / CACHE / DINO.folder / DINO.name)


def _write_torchscript(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as a TorchScript archive without code: CLIP's own loader accepts nothing else."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = module.get_submodule(parent)
        module.register_parameter(last, nn.Parameter(tensor.half(), requires_grad=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.save(torch.jit.script(root), str(path))


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_videos(Path(sys.argv[1]))
    write_weights(Path(sys.argv[1]))
    print(json.dumps({}))

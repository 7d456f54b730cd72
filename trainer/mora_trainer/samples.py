"""Samples before and after training: what every agent of the chain makes of a few prompts, and one contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mora_data.contact_sheet import contact_sheet
from mora_data.reading.fitting import Clip
from mora_data.video_writer import write_video
from PIL import Image
from safetensors.numpy import load_file, save_file

from mora_trainer.chain.generation import ChainGenerator, Pixels
from mora_trainer.chain.stage import Embeddings


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt to make samples of, with the training clip that belongs to it, shown for comparison."""

    text: str
    keys: Mapping[str, str]  # of the encoded prompt, by agent
    target: Clip


@dataclass(frozen=True)
class Share:
    """Which prompts are this rank's: the ranks take them in turn."""

    rank: int
    num_ranks: int

    def has(self, number: int) -> bool:
        """Whether this rank makes the samples of a prompt."""
        return number % self.num_ranks == self.rank


class Sampler:
    """Generates videos with the agents' current weights, each rank with its own agents and prompts.

    Args:
        prompts: all of the job, the same on every rank.
        folder: the same on every rank.
    """

    def __init__(
        self,
        generator: ChainGenerator,
        prompts: Sequence[SamplePrompt],
        *,
        fps: float,
        seed: int,
        folder: Path,
        share: Share,
    ) -> None:
        self._generator = generator
        self._prompts = prompts
        self._fps = fps
        self._seeds = {stage.name: seed for stage in generator.stages}
        self._folder = folder
        self._share = share
        self._untold: list[tuple[int, str]] = []  # what other ranks have made: number of the prompt, label
        self._rows: list[list[tuple[str, Clip]]] = [  # by prompt, so that the rows of a prompt are adjacent
            [(f"target: {prompt.text}", prompt.target)] for prompt in prompts
        ]

    def take(self, label: str, embeddings: Embeddings) -> None:
        """Generate with this rank's prompts; write `<label>-<n>.mp4`, and what each agent before the last one made as
        `<label>-<n>-<agent>.png` (or .mp4).
        """
        for number, prompt in enumerate(self._prompts):
            if not self._share.has(number):
                self._untold.append((number, label))
                continue
            made = self._generator.make(prompt.keys, self._seeds, embeddings)
            for agent, pixels in made.stages.items():
                self._write(f"{label}-{number}-{agent}", pixels)
            self._write(f"{label}-{number}", made.clip)
            clips = [*map(_clip, made.stages.values()), made.clip]
            if self._share.rank == 0:
                self._add_rows(number, label, clips)
            else:
                save_file({f"{index:03d}": clip for index, clip in enumerate(clips)}, self._rows_file(number, label))

    def draw_sheet(self) -> Path:
        """Write the contact sheet of all rows so far; on rank 0, when every rank has returned from `take`."""
        for number, label in self._untold:
            path = self._rows_file(number, label)
            self._add_rows(number, label, [clip for _, clip in sorted(load_file(path).items())])
            path.unlink()
        self._untold.clear()
        sheet = self._folder / "contact-sheet.png"
        contact_sheet([row for rows in self._rows for row in rows]).save(sheet)
        return sheet

    def _add_rows(self, number: int, label: str, clips: Sequence[Clip]) -> None:
        """Add what the agents made of a prompt, in their order."""
        text = self._prompts[number].text
        labels = [*(f"{label}, {stage.name}: {text}" for stage in self._generator.stages[:-1]), f"{label}: {text}"]
        self._rows[number] += zip(labels, clips, strict=True)

    def _rows_file(self, number: int, label: str) -> Path:
        """The file in which another rank passes its pixels to rank 0; a video has other pixels."""
        return self._folder / f".{label}-{number}.safetensors"

    def _write(self, name: str, pixels: Pixels) -> None:
        if pixels.ndim == 3:
            path = self._folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        else:
            path = self._folder / f"{name}.mp4"
            write_video(path, pixels, self._fps)


def _clip(pixels: Pixels) -> Clip:
    return pixels if pixels.ndim == 4 else pixels[None]

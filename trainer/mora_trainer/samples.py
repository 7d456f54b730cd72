"""Samples before and after training: what every agent of the chain makes of a few prompts, and one contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mora_data.clips import Clip, contact_sheet, write_video
from PIL import Image

from mora_trainer.chain.generation import ChainGenerator, Pixels
from mora_trainer.chain.stage import Embeddings


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt to make samples of, with the training clip that belongs to it, shown for comparison."""

    text: str
    keys: Mapping[str, str]  # of the encoded prompt, by agent
    target: Clip


class Sampler:
    """Generates videos with the agents' current weights."""

    def __init__(
        self,
        generator: ChainGenerator,
        prompts: Sequence[SamplePrompt],
        *,
        fps: float,
        seed: int,
        folder: Path,
    ) -> None:
        self._generator = generator
        self._prompts = prompts
        self._fps = fps
        self._seeds = {stage.name: seed for stage in generator.stages}
        self._folder = folder
        self._rows: list[list[tuple[str, Clip]]] = [  # by prompt, so that the rows of a prompt are adjacent
            [(f"target: {prompt.text}", prompt.target)] for prompt in prompts
        ]

    def take(self, label: str, embeddings: Embeddings) -> list[Path]:
        """Generate with every prompt; write `<label>-<n>.mp4`, what each agent before the last one made as
        `<label>-<n>-<agent>.png` (or .mp4), and the contact sheet of all rows so far.
        """
        written: list[Path] = []
        for number, prompt in enumerate(self._prompts):
            made = self._generator.make(prompt.keys, self._seeds, embeddings)
            for agent, pixels in made.stages.items():
                written.append(self._write(f"{label}-{number}-{agent}", pixels))
                self._rows[number].append((f"{label}, {agent}: {prompt.text}", _clip(pixels)))
            written.append(self._write(f"{label}-{number}", made.clip))
            self._rows[number].append((f"{label}: {prompt.text}", made.clip))
        sheet = self._folder / "contact-sheet.png"
        contact_sheet([row for rows in self._rows for row in rows]).save(sheet)
        return [*written, sheet]

    def _write(self, name: str, pixels: Pixels) -> Path:
        if pixels.ndim == 3:
            path = self._folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        else:
            path = self._folder / f"{name}.mp4"
            write_video(path, pixels, self._fps)
        return path


def _clip(pixels: Pixels) -> Clip:
    return pixels if pixels.ndim == 4 else pixels[None]

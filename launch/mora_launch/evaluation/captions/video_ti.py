"""VideoTI of image to video: the cosine of (caption of the picture + instruction) and the caption of the video.

Captions are stored as they are made, in `captions.jsonl`, and next to each score: without its captions it could not be
checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mora_runtime.errors import DatasetError, MoraError, ProtocolError, RoleFailed
from mora_runtime.files.durable_files import sha256_of
from mora_runtime.process.run_directory import RunDirectory
from PIL import Image

from mora_launch.decoding.picture import read_picture
from mora_launch.environments.catalog import Environments
from mora_launch.evaluation.captions.captioner import Captioner, open_captioner
from mora_launch.evaluation.captions.settings import CaptionSettings
from mora_launch.evaluation.durable_lines import DurableLines
from mora_launch.evaluation.measuring.decoded_video import VideoTooLarge, decode
from mora_launch.evaluation.measuring.measurements import Failure
from mora_launch.evaluation.measuring.plan import Measured
from mora_launch.evaluation.measuring.result import Key, Result, settings_hash
from mora_launch.evaluation.measuring.result_store import ResultStore
from mora_launch.evaluation.output.paper_formulas import cosine
from mora_launch.evaluation.suite.video_file import VideoFile
from mora_launch.generation.input_file import read_input
from mora_launch.rounds.judging.frames import shown_frames
from mora_launch.serving.single_server import SingleServer

VIDEO_TI = "video_ti"
CAPTIONS_FILE = "captions.jsonl"
_VERSION = "1"


@dataclass(frozen=True)
class _Pair:
    """A video with its picture and instruction, and the key of its result."""

    video: VideoFile
    image: VideoFile
    instruction: str
    sha256: str
    image_sha256: str
    key: Key


class VideoTi:
    """Scores videos made from pictures.

    Args:
        max_nbytes: of a decoded video.
        on_done: called after each score with the result, or the failure.
    """

    def __init__(
        self,
        settings: CaptionSettings,
        environments: Environments,
        store: ResultStore,
        *,
        max_nbytes: int,
        on_done: Callable[[Result | Failure], None],
    ) -> None:
        self._settings = settings
        self._environments = environments
        self._store = store
        self._max_nbytes = max_nbytes
        self._on_done = on_done
        embedding = settings.embedding
        self.measured = Measured(
            VIDEO_TI, settings.model, _VERSION,
            {"embedding": embedding.model, "pooling": embedding.pooling, "num_frames": str(settings.num_frames)},
            settings.model_dump(mode="json"),
        )  # fmt: skip

    def run(self, videos: Sequence[tuple[VideoFile, str]], output: Path, directory: RunDirectory) -> dict[str, Result]:
        """Return the results by name of the video; those that are stored are not made again.

        Args:
            videos: with the hashes of their files. One without a picture is left out.
            output: folder of the captions.

        Raises:
            KeyboardInterrupt: the user asked to stop; captions so far are stored.
            MoraError: a model cannot be used, or its server has ended.
        """
        pairs = [self._pair(video, sha256) for video, sha256 in videos if video.inputs]
        todo = [pair for pair in pairs if self._store.get(pair.key) is None]
        if todo:
            captioner = open_captioner(self._settings, self._environments)
            encoder = self._encoder()
            with DurableLines(output / CAPTIONS_FILE) as lines, captioner.session(directory):
                captions = _Captions(captioner, self._settings, lines, self._max_nbytes)
                described = [(pair, found) for pair in todo if (found := self._described(pair, captions)) is not None]
            if described:
                with encoder.session(directory, "captions"):
                    for pair, texts in described:
                        self._score(pair, texts, encoder)
        scored = {pair.video.name: self._store.get(pair.key) for pair in pairs}
        return {name: result for name, result in scored.items() if result is not None}

    def _pair(self, video: VideoFile, sha256: str) -> _Pair:
        image_sha256 = sha256_of(video.inputs[0].path)
        settings = {**self._asked(), "image": image_sha256, "instruction": video.prompt or ""}
        key = Key(sha256, VIDEO_TI, _VERSION, settings_hash(settings))
        return _Pair(video, video.inputs[0], video.prompt or "", sha256, image_sha256, key)

    def _asked(self) -> dict[str, Any]:
        """What captions and scores depend on besides files and instruction."""
        settings = self._settings
        return {
            "model": settings.model, "questions": [settings.image_question, settings.video_question],
            "frames": [settings.num_frames, settings.frame_height],
            "embedding": [settings.embedding.model, settings.embedding.pooling],
        }  # fmt: skip

    def _encoder(self) -> SingleServer:
        embedding = self._settings.embedding
        return SingleServer(
            "embedding", embedding.agent(), self._environments, shown=f"text encoder {embedding.model}",
            key="evaluation.captions.embedding.environment", start_deadline_s=embedding.start_deadline_s,
        )  # fmt: skip

    def _described(self, pair: _Pair, captions: _Captions) -> tuple[str, str] | None:
        """The captions of picture and video; None if one cannot be made, which is told."""
        try:
            return captions.of_image(pair.image, pair.image_sha256), captions.of_video(pair.video, pair.sha256)
        except RoleFailed:
            raise
        except MoraError as error:
            if isinstance(error, DatasetError) and not isinstance(error, VideoTooLarge):
                self._add(pair, Result(pair.video.name, pair.key, self._settings.model, {}, refused=str(error)))
                return None
            self._on_done(Failure(pair.video.name, VIDEO_TI, " ".join(str(error).split())))
        return None

    def _score(self, pair: _Pair, texts: tuple[str, str], encoder: SingleServer) -> None:
        from mora_runtime.tensors.tensor_store import TensorRef

        mixed = f"{texts[0]} {pair.instruction}".strip()
        arguments = {"texts": [mixed, texts[1]]}
        values = encoder.call("embed", arguments, timeout_s=self._settings.embedding.timeout_s)
        found = values.get("embeddings")
        vectors = found.tensor().double().tolist() if isinstance(found, TensorRef) else []
        if len(vectors) != 2:
            raise ProtocolError(f"{self._settings.embedding.model}: expected 2 vectors, got {len(vectors)}")
        details = {"image_caption": texts[0], "instruction": pair.instruction, "video_caption": texts[1]}
        score = cosine(*vectors)
        self._add(pair, Result(pair.video.name, pair.key, self._settings.model, {}, score=score, details=details))

    def _add(self, pair: _Pair, result: Result) -> None:
        self._store.add(result)
        self._on_done(result)


class _Captions:
    """Captions by file and question; those in the file of an earlier start are not made again."""

    def __init__(self, captioner: Captioner, settings: CaptionSettings, lines: DurableLines, max_nbytes: int) -> None:
        self._captioner = captioner
        self._settings = settings
        self._lines = lines
        self._max_nbytes = max_nbytes
        self._known = {self._place(line): str(line["caption"]) for line in lines.before if "caption" in line}

    def of_image(self, image: VideoFile, sha256: str) -> str:
        """Describe a picture."""

        def frames() -> list[Image.Image]:
            pixels = read_picture(read_input(image.path, "--pairs"), image.name)
            return shown_frames(pixels[None], 1, self._settings.frame_height)

        return self._of(image, sha256, self._settings.image_question, 1, frames)

    def of_video(self, video: VideoFile, sha256: str) -> str:
        """Describe a video by frames that are evenly spread over it."""
        number, height = self._settings.num_frames, self._settings.frame_height

        def frames() -> list[Image.Image]:
            return shown_frames(np.stack(decode(video.path, self._max_nbytes).frames), number, height)

        return self._of(video, sha256, self._settings.video_question, number, frames)

    def _of(
        self, file: VideoFile, sha256: str, question: str, num_frames: int, frames: Callable[[], list[Image.Image]]
    ) -> str:
        line = {
            "file": file.name, "sha256": sha256, "model": self._settings.model, "question": question,
            "num_frames": num_frames, "frame_height": self._settings.frame_height,
        }  # fmt: skip
        place = self._place(line)
        if place not in self._known:
            self._known[place] = self._captioner.describe(frames(), question)
            self._lines.append({**line, "caption": self._known[place]})
        return self._known[place]

    def _place(self, line: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(line.get(name) for name in ("sha256", "model", "question", "num_frames", "frame_height"))

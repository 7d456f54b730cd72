"""Stable Diffusion 3's three text encoders: prompts to joint embeddings, and the rows that start z_1.

They are loaded on first use and can be unloaded, because T5 alone is larger than the transformer. Embeddings are
stored by a hash of their content, so that only short keys travel between processes. In a training job they are on disk
too, where the agent's other servers and a restart find them.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from mora_runtime.errors import BadArgument
from mora_training.tensor_files import TensorFiles

MAX_PROMPT_LENGTH = 10_000


@dataclass(frozen=True)
class TextEmbedding:
    """One prompt: the rows that the transformer attends to, and the vector that modulates it."""

    joint: torch.Tensor  # (L, d): CLIP tokens (width zero-padded), then T5 tokens; d = T5's width
    pooled: torch.Tensor  # (p,): both CLIPs' pooled projections


class TextEncoders:
    """Encodes prompts as `TextEmbedding`s.

    Args:
        model: folder or Hub id in diffusers' layout.
        dtype: of weights and embeddings.
        max_sequence_length: T5 tokens; longer prompts are truncated there (CLIP truncates at 77 tokens).
        folder: of the job, for results that its other processes can use; None = results stay in this process.
    """

    def __init__(
        self,
        model: str,
        dtype: torch.dtype,
        device: torch.device,
        max_sequence_length: int,
        folder: Path | None = None,
    ) -> None:
        self._model = model
        self._dtype = dtype
        self._device = device
        self._max_sequence_length = max_sequence_length
        self._pipeline: StableDiffusion3Pipeline | None = None
        self._known: dict[str, TextEmbedding] = {}
        self._rows: dict[tuple[str, bool, bool], torch.Tensor] = {}  # by the arguments of `rows`
        self._files = self._row_files = None
        if folder is not None:
            self._files = TensorFiles(folder, {"joint": (None, None), "pooled": (None,)})
            self._row_files = TensorFiles(folder / "rows", {"rows": (None, None)})
            self._identity = repr((model, dtype, device.type, max_sequence_length, _weights_state(Path(model))))

    def _loaded(self) -> StableDiffusion3Pipeline:
        if self._pipeline is None:
            logging.getLogger(__name__).info("loading text encoders of %s", self._model)
            pipeline = StableDiffusion3Pipeline.from_pretrained(
                self._model, transformer=None, vae=None, dtype=self._dtype, use_safetensors=True
            )
            self._pipeline = pipeline.to(self._device)
        return self._pipeline

    def unload(self) -> None:
        """Free the encoders; computed embeddings stay, and new prompts load the encoders again."""
        self._pipeline = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> list[str]:
        """Keys of the prompts' embeddings; unknown ones are computed.

        Raises:
            BadArgument: a prompt is longer than 10,000 characters.
        """
        keys = [hashlib.sha256(prompt.encode()).hexdigest()[:32] for prompt in prompts]
        for key, prompt in zip(keys, prompts, strict=True):
            if len(prompt) > MAX_PROMPT_LENGTH:
                raise BadArgument(f"prompt: expected at most {MAX_PROMPT_LENGTH} characters, got {len(prompt)}")
            if key not in self._known:
                self._known[key] = self._shared(prompt)
        return keys

    def _shared(self, prompt: str) -> TextEmbedding:
        """One prompt's embedding, from the job's folder if it is there, which otherwise gets it."""
        if self._files is None:
            return self.embed(prompt)
        name = self._name("prompt", prompt)
        found = self._files.read(name)
        if found is not None:
            return TextEmbedding(found["joint"].to(self._device), found["pooled"].to(self._device))
        embedding = self.embed(prompt)
        parts = {"joint": embedding.joint, "pooled": embedding.pooled}
        self._files.write(name, {part: tensor.cpu().contiguous() for part, tensor in parts.items()})
        return embedding

    def _name(self, *parts: object) -> str:
        """The name of a result in the job's folder: a hash of everything that it depends on."""
        return hashlib.sha256(repr((self._identity, *parts)).encode()).hexdigest()

    @torch.no_grad()
    def embed(self, prompt: str) -> TextEmbedding:
        """One prompt's embedding, which is not stored here."""
        joint, _, pooled, _ = self._loaded().encode_prompt(
            prompt,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            device=self._device,
            max_sequence_length=self._max_sequence_length,
        )
        return TextEmbedding(joint[0], pooled[0])

    def get(self, key: str) -> TextEmbedding:
        """The embedding of a key from `encode`; BadArgument for any other key."""
        if key not in self._known:
            raise BadArgument(f"unknown prompt key `{key[:40]}`; expected one that `encode` of this server returned")
        return self._known[key]

    def rows(self, text: str, *, new_token: bool, each: bool) -> torch.Tensor:
        """Rows that initialise z_1: T5's output for the content tokens of `text`, without end-of-sequence.

        They are cached, so that the next call does not load the encoders again.

        Args:
            new_token: encode one token whose input embedding is the vocabulary's mean, instead of `text`.
            each: put the CLIPs' rows for `text` before T5's: "one z per encoder", all on the joint sequence.

        Returns:
            float32 (rows, d) on the CPU.
        """
        key = (text, new_token, each)
        if key not in self._rows:
            self._rows[key] = self._shared_rows(text, new_token=new_token, each=each)
        return self._rows[key]

    def _shared_rows(self, text: str, *, new_token: bool, each: bool) -> torch.Tensor:
        """The result of `rows`, from the job's folder if it is there, which otherwise gets it."""
        if self._row_files is None:
            return self._computed_rows(text, new_token=new_token, each=each)
        name = self._name("rows", text, new_token, each)
        found = self._row_files.read(name)
        if found is not None:
            return found["rows"]
        rows = self._computed_rows(text, new_token=new_token, each=each)
        self._row_files.write(name, {"rows": rows.contiguous()})
        return rows

    @torch.no_grad()
    def _computed_rows(self, text: str, *, new_token: bool, each: bool) -> torch.Tensor:
        pipeline = self._loaded()
        encoder = pipeline.text_encoder_3
        if encoder is None:
            raise BadArgument("this model has no T5 encoder, which initialises z_1; use modulation.mode random_init")
        table = encoder.get_input_embeddings()
        end = torch.tensor([pipeline.tokenizer_3.eos_token_id], device=self._device)
        if new_token:
            content = table.weight.mean(dim=0, keepdim=True)
        else:
            ids = pipeline.tokenizer_3(text, add_special_tokens=False, return_tensors="pt").input_ids[0]
            content = table(ids.to(self._device))
        inputs = torch.cat([content, table(end)]).unsqueeze(0)
        rows = encoder(inputs_embeds=inputs)[0][0, :-1]
        if each:
            clip = self._clip_rows(text, rows.shape[-1])
            rows = torch.cat([clip.to(rows), rows])
        return rows.float().cpu()

    def _clip_rows(self, text: str, width: int) -> torch.Tensor:
        """Both CLIPs' content rows side by side, zero-padded to `width` as SD3 pads them: (rows, width)."""
        pipeline = self._loaded()
        embedding = self.embed(text).joint[: pipeline.tokenizer_max_length, :width]
        num_content = len(pipeline.tokenizer(text, add_special_tokens=False).input_ids)
        return embedding[1 : 1 + num_content]  # token 0 is start-of-text


def _weights_state(model: Path) -> list[tuple[str, int, int, int]]:
    """Name, size, time and inode of the files of a model's folder; empty for a Hub id: servers of a job are offline."""
    paths = [path for path in sorted(model.rglob("*")) if path.is_file()] if model.is_dir() else []
    states = [(path, path.stat()) for path in paths]
    return [(str(path.relative_to(model)), found.st_size, found.st_mtime_ns, found.st_ino) for path, found in states]

"""Target clips: each is sent to the agents that compare with it, of one replica only if the replicas share results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from mora_data.sample import Sample
from mora_data.settings import ClipShape
from mora_runtime import Session
from mora_runtime.errors import ProtocolError
from mora_runtime.files.durable_files import replace_text
from mora_runtime.trace import tracing

from mora_trainer.chain.stage import Stage

Keys = Mapping[str, str]  # of one clip, by agent
_DECODED_AHEAD = 2  # clips that wait in memory while the agents encode
_KEYS_PER_CALL = 64


class Targets:
    """Keys of the samples' clips in this replica's agents.

    Args:
        stages: of the chain; those that compare with targets receive the clips.
        samples: the dataset, in file order.
        folder: for records of the keys, shared by all ranks and by restarts; None = no records.
        deadline_s: for each decoded clip.
    """

    def __init__(
        self,
        session: Session,
        stages: Sequence[Stage],
        samples: Sequence[Sample],
        shape: ClipShape,
        folder: Path | None,
        *,
        deadline_s: float,
    ) -> None:
        self._session = session
        self._receivers = [stage for stage in stages if stage.loss_weight > 0.0 and stage.interface.needs_targets]
        self._samples = samples
        self._shape = shape
        self._folder = folder
        self._deadline_s = deadline_s
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder")
        self._clips: dict[int, Future[npt.NDArray[np.uint8]]] = {}  # decoded ahead of their use
        self._keys: dict[int, Keys] = {}  # by index of the sample

    def keys(self, index: int) -> Keys:
        """Keys of a sample's clip, by agent; sends the clip if it has not been sent."""
        if index not in self._keys:
            self._keys[index] = self._sent(index)
        return self._keys[index]

    def prepare(
        self,
        needed: Sequence[Sequence[int]],
        rank: int,
        wait_for_all: Callable[[], None],
        on_sent: Callable[[int, int], None],
    ) -> None:
        """Have the agents store every clip that this rank's part of the job needs.

        Each clip is first sent by one of the ranks that need it. If their agents share what they store (the method
        `has_targets`), the other ranks send nothing.

        Args:
            needed: indices of samples by rank, in the order of their first use; the same on every rank.
            wait_for_all: returns when every rank has called it.
            on_sent: called after each sent clip with the number of sent clips and of all that are sent next.
        """
        self._find_stored(needed[rank])
        self._send(shares(needed)[rank], on_sent)
        self._write_record(rank)
        wait_for_all()
        self._find_stored(needed[rank])
        self._send(needed[rank], on_sent)

    def _send(self, indices: Sequence[int], on_sent: Callable[[int, int], None]) -> None:
        missing = [index for index in indices if index not in self._keys]
        for number, index in enumerate(missing):
            for ahead in missing[number : number + 1 + _DECODED_AHEAD]:
                if ahead not in self._clips and self._receivers:
                    self._clips[ahead] = self._decoder.submit(self._decode, ahead)
            self.keys(index)
            on_sent(number + 1, len(missing))

    def _sent(self, index: int) -> Keys:
        if not self._receivers:
            return {}
        ahead = self._clips.pop(index, None)
        with tracing.span("wait for the decoder", "wait"):
            clip = self._decode(index) if ahead is None else ahead.result(self._deadline_s)
        pixels = self._session.empty(clip.shape, torch.uint8)
        pixels.copy_(torch.from_numpy(np.ascontiguousarray(clip)))
        pending = [
            stage.client.submit(stage.name, "store_target", {"pixels": pixels}, deadline_s=stage.deadline_s)
            for stage in self._receivers
        ]
        replies = [call.result() for call in pending]
        return {stage.name: str(reply.values["key"]) for stage, reply in zip(self._receivers, replies, strict=True)}

    def _decode(self, index: int) -> npt.NDArray[np.uint8]:
        with tracing.span("decode clip", "io"):
            return self._samples[index].clip(self._shape)

    def _find_stored(self, indices: Sequence[int]) -> None:
        """Take over the keys of clips that earlier processes or other ranks have sent, if the agents have them."""
        can_tell = all("has_targets" in stage.client.welcome.agents[stage.name] for stage in self._receivers)
        if self._folder is None or not self._receivers or not can_tell:
            return
        recorded = self._recorded()
        names = {stage.name for stage in self._receivers}
        known = {index: recorded.get(self._identity(index), {}) for index in indices if index not in self._keys}
        asked = [index for index, keys in known.items() if keys.keys() == names]
        for start in range(0, len(asked), _KEYS_PER_CALL):
            part = asked[start : start + _KEYS_PER_CALL]
            found = [_found(stage, [known[index][stage.name] for index in part]) for stage in self._receivers]
            self._keys.update({index: known[index] for index, *each in zip(part, *found, strict=True) if all(each)})

    def _write_record(self, rank: int) -> None:
        if self._folder is None or not self._keys:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        record = {self._identity(index): dict(keys) for index, keys in self._keys.items()}
        replace_text(self._folder / f"clips-{rank}.json", json.dumps(record, indent=1), synced=False)

    def _recorded(self) -> dict[str, dict[str, str]]:
        """The records of all ranks. An unreadable one counts as empty: its clips are sent again."""
        assert self._folder is not None
        merged: dict[str, dict[str, str]] = {}
        for path in sorted(self._folder.glob("clips-*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(record, dict) and all(_are_keys(keys) for keys in record.values()):
                merged |= record
        return merged

    def _identity(self, index: int) -> str:
        """A text that changes with the file of a clip and with how it is cut; empty if the file cannot be found."""
        sample = self._samples[index]
        try:
            found = sample.video.stat()
        except OSError:
            return ""  # its decoding says more
        parts = [str(sample.video), found.st_size, found.st_mtime_ns, sample.start_s, sample.fps, repr(self._shape)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def shares(needed: Sequence[Sequence[int]]) -> list[list[int]]:
    """Give each sample to one of the ranks that need it, so that the ranks have about equally many.

    Args:
        needed: indices by rank.
    """
    ranks_of: dict[int, list[int]] = {}
    for rank, indices in enumerate(needed):
        for index in indices:
            ranks_of.setdefault(index, []).append(rank)
    given: list[list[int]] = [[] for _ in needed]
    for index, ranks in sorted(ranks_of.items(), key=lambda item: len(item[1])):  # those without a choice first
        given[min(ranks, key=lambda rank: len(given[rank]))].append(index)
    return given


def _found(stage: Stage, keys: list[str]) -> list[bool]:
    reply = stage.client.call(stage.name, "has_targets", {"keys": keys}, deadline_s=stage.deadline_s)
    found = reply.values.get("found")
    if not isinstance(found, list) or len(found) != len(keys):
        raise ProtocolError(f"{stage.name}.has_targets: expected `found`, {len(keys)} times true or false, got {found}")
    return [bool(each) for each in found]


def _are_keys(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value.values())

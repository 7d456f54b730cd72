"""One entry of a data set: its keys, checked, to samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mora_runtime.files.shown_text import shown_line
from mora_runtime.schema import nearest_name

from mora_data.sample import Sample
from mora_data.video_path import located

MAX_PROMPT_LENGTH = 2000
_MAX_PATH_LENGTH = 4096
_MAX_NUM_PROMPTS = 100
_MAX_SHOWN_LENGTH = 200
VIDEO_KEYS = ("video", "file_name", "video_path", "path")  # of Mora; Hugging Face's videofolder; other trainers
PROMPT_KEYS = ("prompt", "text", "caption")
_OLD_SEED = "image_seed"  # of data sets from before agents had names of any kind: the seed of the agent `image`
KEYS = ("prompt", "prompts", "video", "start_s", "fps", "seeds")
_KNOWN = {*KEYS, *VIDEO_KEYS, *PROMPT_KEYS, _OLD_SEED}


def samples_of(
    entry: Mapping[str, Any],
    *,
    folder: Path,
    where: str,
    line: int,
    default_fps: float | None,
    ignores_others: bool = False,
) -> list[Sample]:
    """Return the samples of an entry: one, or one for each of `prompts`.

    Args:
        folder: of relative paths.
        where: file and line, for errors.
        ignores_others: accept keys that mean nothing here, as the columns of a table.

    Raises:
        ValueError: what is wrong with it, without `where`.
    """
    if not ignores_others:
        _check_keys(entry)
    video = _one_of(entry, VIDEO_KEYS)
    prompts = _prompts(entry)
    if not isinstance(video, str) or not 0 < len(video) <= _MAX_PATH_LENGTH or "\0" in video:
        raise ValueError(f"`video` must be a path, got {_short(video)}")
    start_s, fps = _number(entry, "start_s"), _number(entry, "fps")
    path = located(video, folder)
    seeds = _seeds(entry)
    at = start_s or 0.0
    return [Sample(prompt, path, at, fps or default_fps, seeds, where, line, video) for prompt in prompts]


def named_video(entry: Mapping[str, Any]) -> str:
    """The video that a wrong entry names, for its fault; empty if none."""
    found = next((entry[key] for key in VIDEO_KEYS if isinstance(entry.get(key), str)), "")
    return shown_line(found, _MAX_SHOWN_LENGTH)


def checked_prompt(prompt: Any, key: str = "prompt") -> str:
    """Return a prompt. Raises: ValueError: it is not a text of the allowed length."""
    if not isinstance(prompt, str) or not 0 < len(prompt.strip()) <= MAX_PROMPT_LENGTH:
        raise ValueError(f"`{key}` must be a text of 1 to {MAX_PROMPT_LENGTH} characters")
    return prompt


def _check_keys(entry: Mapping[str, Any]) -> None:
    unknown = sorted(set(entry) - _KNOWN)
    if unknown:
        nearest = nearest_name(unknown[0], _KNOWN)
        hint = f"; did you mean `{nearest}`?" if nearest else ""
        raise ValueError(f"unknown key `{shown_line(unknown[0], 60)}`{hint}; known are {', '.join(KEYS)}")


def _one_of(entry: Mapping[str, Any], keys: Collection[str]) -> Any:
    """The value of the key that is there, of several names for one thing."""
    there = [key for key in keys if entry.get(key) is not None]
    if len(there) > 1:
        raise ValueError(f"`{there[0]}` and `{there[1]}` mean the same; expected one of them")
    return entry[there[0]] if there else None


def _prompts(entry: Mapping[str, Any]) -> list[str]:
    several, one = entry.get("prompts"), _one_of(entry, PROMPT_KEYS)
    if several is None:
        return [checked_prompt(one)]
    if one is not None:
        raise ValueError("`prompts` and a single prompt are both there; expected one of them")
    if not isinstance(several, list) or not 0 < len(several) <= _MAX_NUM_PROMPTS:
        raise ValueError(f"`prompts` must be a list of 1 to {_MAX_NUM_PROMPTS} texts, got {_short(several)}")
    return [checked_prompt(prompt, "prompts") for prompt in several]


def _number(entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"`{key}` must be a number >= 0, got {_short(value)}")
    return float(value)


def _seeds(entry: Mapping[str, Any]) -> dict[str, int]:
    seeds = entry.get("seeds") or {}
    if not isinstance(seeds, dict):
        raise ValueError(f"`seeds` must be an object with a number for each agent, got {_short(seeds)}")
    if entry.get(_OLD_SEED) is not None:
        seeds = {"image": entry[_OLD_SEED], **seeds}
    for agent, value in seeds.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
            key = f"seeds.{shown_line(agent, 60)}" if agent in (entry.get("seeds") or {}) else _OLD_SEED
            raise ValueError(f"`{key}` must be an integer from 0 to 2^63 - 1, got {_short(value)}")
    return seeds


def _short(value: Any) -> str:
    return shown_line(ascii(value), 60)

"""What the options of several kinds share. It imports no model library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mora_environment.model_folder import count_parameters, published_count

NBYTES = {"float32": 4, "bfloat16": 2}  # of one number


def check_gradient_steps(gradient_steps: int | str | None, num_inference_steps: int) -> None:
    """Raises: ValueError: more steps would have a gradient than there are."""
    if isinstance(gradient_steps, int) and gradient_steps > num_inference_steps:
        raise ValueError(
            f"gradient_steps {gradient_steps} must be between 1 and num_inference_steps {num_inference_steps}, or be "
            "`all`"
        )


def count_component(source: str, name: str, published: Mapping[str, Mapping[str, int]]) -> int:
    """Number of parameters of a component of a folder or Hub id.

    Raises:
        SettingsError: it is missing, and the name is not a known Hub id.
    """
    folder = Path(source)
    if folder.is_dir():
        return count_parameters(folder / name, source)
    return published_count(source, name, published)

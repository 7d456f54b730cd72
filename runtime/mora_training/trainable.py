"""Which parameters of a module train: all, those that match patterns, LoRA adapters, or none.

Servers call it before they build the optimizer. It sets `requires_grad` flags and, for LoRA, wraps layers with peft.
"""

from __future__ import annotations

import fnmatch

import torch
from mora_runtime.errors import SettingsError
from mora_runtime.schema import nearest_name

from mora_training.adapters import inject_adapters
from mora_training.training_settings import TrainableSettings


def select_trainable(module: torch.nn.Module, settings: TrainableSettings) -> None:
    """Freeze `module` except for the parameters that `settings` selects.

    Raises:
        SettingsError: a pattern or LoRA target matches nothing; less than configured would train.
    """
    if settings.scope == "lora":
        inject_adapters(module, settings)
        return
    module.requires_grad_(settings.scope == "all")
    if settings.scope == "patterns":
        _enable_patterns(module, settings.patterns)


def _enable_patterns(module: torch.nn.Module, patterns: tuple[str, ...]) -> None:
    parameters = dict(module.named_parameters())
    if not patterns:
        raise SettingsError("trainable scope is `patterns` but no pattern is given; add some, or use scope `none`")
    for pattern in patterns:
        matched = fnmatch.filter(parameters, pattern)
        if not matched:
            nearest = nearest_name(pattern, parameters)
            hint = f"; the nearest name is `{nearest}`" if nearest else ""
            raise SettingsError(f"trainable pattern `{pattern}` matches none of {len(parameters)} parameters{hint}")
        for name in matched:
            parameters[name].requires_grad_(True)


def parameter_counts(module: torch.nn.Module) -> tuple[int, int]:
    """Numbers of parameters (all, trainable), counted in elements."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)

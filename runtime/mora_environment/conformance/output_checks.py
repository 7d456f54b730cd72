"""Checks of what a method of a chain returns: shapes and types, repetition, and a sample alone and in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mora_environment.conformance.outcome import expect
from mora_environment.conformance.subject import Subject
from mora_environment.promised_methods import Promise

_FLOAT_TOLERANCE = 1e-4  # of float32 outputs, alone and in a batch: kernels are chosen by the size of the batch
_BYTE_TOLERANCE = 1


def outputs_are_as_declared(subject: Subject, promise: Promise) -> str:
    """Every declared output is there, with its shape and dtype, and finite."""
    returned = subject.call(promise, subject.arguments(promise))
    shown = []
    for name, (dtype, shape) in _declared(subject, promise).items():
        found = returned.get(name)
        expect(isinstance(found, torch.Tensor), f"expected a tensor `{name}`, got {sorted(returned)}")
        assert isinstance(found, torch.Tensor)
        fits = found.dtype == dtype and len(found.shape) == len(shape)
        fits = fits and all(wanted in (None, size) for wanted, size in zip(shape, found.shape, strict=True))
        told = ", ".join("any" if size is None else str(size) for size in shape)
        expect(fits, f"{name}: expected {dtype} ({told}), got {found.dtype} {tuple(found.shape)}")
        expect(bool(found.isfinite().all()), f"{name}: expected finite numbers")
        shown.append(f"{name} {tuple(found.shape)}")
    return ", ".join(shown)


def _declared(subject: Subject, promise: Promise) -> dict[str, tuple[torch.dtype, Sequence[int | None]]]:
    told, size = subject.interface, 2
    if promise.method == "generate":
        assert told.generates is not None
        time = (told.generates.num_frames,) if told.generates.modality == "frames" else ()
        return {"outputs": (torch.uint8, (size, *time, told.generates.height, told.generates.width, 3))}
    if promise.method == "score":
        return {"scores": (torch.float32, (size,))}
    declared: dict[str, tuple[torch.dtype, Sequence[int | None]]] = {}
    if promise.method == "forward":
        declared = {name: (torch.float32, (size, *port.sample_shape)) for name, port in told.gives.items()}
    if promise.method == "loss" or "target_keys" in promise.arguments:
        declared["loss"] = (torch.float32, ())
    return declared


def calls_repeat(subject: Subject, promise: Promise) -> str:
    """The same call returns the same bits, whatever other random numbers were drawn, and draws none itself."""
    returned = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        returned.append(subject.call(promise, subject.arguments(promise)))
        expect(
            torch.equal(torch.get_rng_state(), before),
            "it draws from torch's global generator; expected all randomness of a sample from its seed",
        )
    for name, first in _tensors(returned[0]).items():
        expect(torch.equal(first, returned[1][name]), f"{name}: expected the same bits from the same call")
    return ""


def batches_equal_samples(subject: Subject, promise: Promise) -> str:
    """A sample is the same alone and in a batch of two; a scalar of a batch is the mean over its samples."""
    together = _tensors(subject.call(promise, subject.arguments(promise)))
    alone = [_tensors(subject.call(promise, subject.arguments(promise, [sample]))) for sample in (0, 1)]
    found: dict[str, str] = {}
    for name, batch in together.items():
        parts = [each[name] for each in alone]
        expected = torch.stack(parts).float().mean() if batch.ndim == 0 else torch.cat(parts)
        shapes = f"{tuple(batch.shape)} together, {tuple(expected.shape)} alone"
        expect(expected.shape == batch.shape, f"{name}: expected equal shapes, got {shapes}")
        distance = float((batch.double() - expected.double()).abs().max())
        limit = _BYTE_TOLERANCE if batch.dtype == torch.uint8 else _FLOAT_TOLERANCE
        expect(distance <= limit, f"{name}: a sample differs by {distance:.3g} in a batch, expected at most {limit:g}")
        found[name] = f"{name} within {distance:.1g}, at most {limit:g}" if distance else f"{name} bit-equal"
    return "; ".join(found.values())


def _tensors(returned: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in returned.items() if isinstance(value, torch.Tensor)}

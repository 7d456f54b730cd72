"""The suite: which checks a kind gets, in which order, and how their outcomes are told."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from mora_runtime.errors import MoraError

from mora_environment.conformance.gradient_checks import gradients_equal_differences
from mora_environment.conformance.key_checks import clips_have_keys, prompts_have_keys, rows_start_z, seeds_have_noise
from mora_environment.conformance.metric_checks import (
    metric_is_described,
    scores_are_complete,
    scores_repeat,
    unusable_videos_are_refused,
)
from mora_environment.conformance.option_checks import (
    entry_is_sound,
    options_are_accepted,
    options_refuse_unknown_keys,
    promised_methods_exist,
    tiny_models_are_made,
    tiny_models_load,
)
from mora_environment.conformance.outcome import CheckFailed, Outcome
from mora_environment.conformance.output_checks import (
    batches_equal_samples,
    calls_repeat,
    outputs_are_as_declared,
)
from mora_environment.conformance.server_check import errors_cross_a_server
from mora_environment.conformance.subject import Subject
from mora_environment.kind import Kind, kind_named
from mora_environment.promised_methods import promises_of

log = logging.getLogger(__name__)
Check = Callable[[], str]
SERVER_CHECK = "errors cross a server"
_CALLS = ("forward", "loss", "generate", "score")


def check_kinds(kinds: Mapping[str, Kind], package: str, names: Sequence[str], report: Path | None) -> int:
    """Check some kinds, or all of them; print one line for each check.

    Args:
        report: file for the outcomes as JSON.

    Returns:
        exit code: 0 if every check passed, else 1.
    """
    for name in names:
        kind_named(kinds, name, source=f"{package} check", package=package)
    found = {name: list(_told(kinds, package, name)) for name in (names or kinds)}
    if report is not None:
        content = {name: [vars(outcome) for outcome in outcomes] for name, outcomes in found.items()}
        report.write_text(json.dumps({"package": package, "kinds": content}, indent=1) + "\n", encoding="utf-8")
    return 0 if all(outcome.ok for outcomes in found.values() for outcome in outcomes) else 1


def _told(kinds: Mapping[str, Kind], package: str, name: str) -> Iterator[Outcome]:
    for outcome in check_kind(kinds, package, name):
        print(outcome.line(name), flush=True)
        yield outcome
    if kinds[name].tiny is None:
        print(f"{name}: its models are not checked: its entry in KINDS has no `tiny`", flush=True)


def check_kind(kinds: Mapping[str, Kind], package: str, name: str, *, with_server: bool = True) -> Iterator[Outcome]:
    """Run the checks of one kind; a check that every later one needs ends the suite when it fails."""
    with tempfile.TemporaryDirectory(prefix="mora-check-") as folder:
        subject = Subject(kinds, package, name, Path(folder) / name)
        for check, run in _needed(subject):
            outcome = _outcome(check, run)
            yield outcome
            if not outcome.ok:
                return
        if subject.kind.tiny is None:
            return
        for check, run in _others(subject, with_server=with_server):
            yield _outcome(check, run)


def _needed(subject: Subject) -> Iterator[tuple[str, Check]]:
    yield "entry is sound", partial(entry_is_sound, subject)
    if subject.kind.tiny is not None:
        yield "tiny models are made", partial(tiny_models_are_made, subject)
        yield "options are accepted", partial(options_are_accepted, subject)
        yield "tiny models load", partial(tiny_models_load, subject)
        yield "promised methods exist", partial(promised_methods_exist, subject)


def _others(subject: Subject, *, with_server: bool) -> Iterator[tuple[str, Check]]:
    told = subject.interface
    yield "options refuse unknown keys", partial(options_refuse_unknown_keys, subject)
    for has_it, check, run in (
        (told.has_text, "prompts have keys", prompts_have_keys),
        (told.has_modulation, "rows start z", rows_start_z),
        (told.has_noise, "seeds have noise", seeds_have_noise),
        (told.needs_targets, "clips have keys", clips_have_keys),
        (told.is_metric, "measure: it is described", metric_is_described),
        (told.is_metric, "measure: scores are complete", scores_are_complete),
        (told.is_metric, "measure: scores repeat", scores_repeat),
        (told.is_metric, "measure: unusable videos are refused", unusable_videos_are_refused),
    ):
        if has_it:
            yield check, partial(run, subject)
    for promise in promises_of(told):
        if promise.method in _CALLS:
            yield f"{promise.method}: outputs are as declared", partial(outputs_are_as_declared, subject, promise)
            yield f"{promise.method}: calls repeat", partial(calls_repeat, subject, promise)
            yield f"{promise.method}: batches equal samples", partial(batches_equal_samples, subject, promise)
        if promise.is_differentiable:
            yield (
                f"{promise.method}: gradients equal differences",
                partial(gradients_equal_differences, subject, promise),
            )
    if with_server:
        yield SERVER_CHECK, partial(errors_cross_a_server, subject)


def _outcome(check: str, run: Check) -> Outcome:
    try:
        return Outcome(check, True, run())
    except (CheckFailed, MoraError) as error:
        return Outcome(check, False, str(error))
    except Exception as error:
        # the code of an environment's author raises any class; it is a failed check, and the others still run
        log.debug("the check `%s` failed", check, exc_info=True)
        return Outcome(check, False, f"{type(error).__name__}: {error}")

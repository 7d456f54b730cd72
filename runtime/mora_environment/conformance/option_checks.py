"""Checks of a kind's entry and of its options."""

from __future__ import annotations

from typing import Any

from mora_environment.conformance.outcome import expect
from mora_environment.conformance.subject import Subject
from mora_environment.kind import imported, kind_named
from mora_environment.options_command import answer_request
from mora_environment.promised_methods import check_methods, check_trainable

_SOURCE = "agents.checked.options"


def entry_is_sound(subject: Subject) -> str:
    """The callables of the table's entry can be imported, and the option of the weights exists."""
    kind = kind_named(subject.kinds, subject.name, source=subject.package, package=subject.package)
    makers: dict[str, Any] = {"builder": kind.build, "maker of tiny models": kind.tiny}
    makers |= {f"maker of tiny models for `{task}`": maker for task, maker in kind.tiny_tasks.items()}
    for what, maker in makers.items():
        if maker is not None:
            imported(maker, owner=f"{subject.owner}: its {what}")
    return ""


def tiny_models_are_made(subject: Subject) -> str:
    """The maker of tiny models writes them and returns options."""
    expect(bool(subject.content), "expected options that load the tiny models, got none from their maker")
    return ""


def options_are_accepted(subject: Subject) -> str:
    """The options of the tiny models are accepted, and the answer, with all defaults, is accepted again unchanged."""
    first = _answer(subject, subject.content)
    expect("error" not in first, f"the options of its tiny models are refused: {first.get('error')}")
    second = _answer(subject, first["options"])
    expect("error" not in second, f"the options with all defaults are refused: {second.get('error')}")
    expect(first == second, "the answer to the options with all defaults differs from the first")
    return f"{len(first['components'])} components"


def options_refuse_unknown_keys(subject: Subject) -> str:
    """A misspelt key is refused, and the message names the key that was meant."""
    name = max(subject.content, key=len)
    misspelt = name[:-1] + "_" if len(name) > 1 else name + "_"
    found = _answer(subject, {**subject.content, misspelt: 1}).get("error")
    expect(found is not None, f"expected an error for the unknown key `{misspelt}`, got none")
    expect(misspelt in str(found), f"expected an error that names `{misspelt}`, got: {found}")
    expect(f"`{name}`" in str(found), f"expected an error that names the nearest key `{name}`, got: {found}")
    return ""


def _answer(subject: Subject, content: dict[str, Any]) -> dict[str, Any]:
    request = {"kind": subject.name, "options": content, "source": _SOURCE}
    return answer_request(subject.kinds, subject.package, request)


def tiny_models_load(subject: Subject) -> str:
    """The agent is built from its tiny models."""
    module = subject.agent.module()
    num_parameters = 0 if module is None else sum(parameter.numel() for parameter in module.parameters())
    return f"{num_parameters} parameters can train" if subject.kind.weights is not None else ""


def promised_methods_exist(subject: Subject) -> str:
    """The agent has the methods that its interface promises, and can be trained if its entry has `weights`."""
    check_methods(subject.agent, subject.interface, subject.owner)
    if subject.kind.weights is not None:
        check_trainable(subject.agent, subject.kind, subject.owner)
    return ""

"""An agent's table is closed, and arguments are checked before the agent sees them."""

from typing import Any

import pytest
import torch
from mora_runtime import Agent, ModuleAgent, remote
from mora_runtime.errors import BadArgument, UnknownMethod
from mora_runtime.rpc.agent import check_arguments, method_of, methods_of


class Example(Agent):
    @remote
    def all_types(
        self, x: torch.Tensor, n: int, f: float, s: str, b: bool, many: list[torch.Tensor], o: str | None = None
    ) -> None: ...

    @remote(differentiable=True)
    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()

    def not_remote(self) -> None: ...


GOOD: dict[str, Any] = {"x": torch.ones(1), "n": 1, "f": 1.5, "s": "a", "b": True, "many": [torch.ones(1)]}


def check(**changes: Any) -> None:
    check_arguments("example.all_types", methods_of(Example)["all_types"], {**GOOD, **changes})


def test_the_table_contains_only_marked_methods() -> None:
    table = methods_of(Example)
    assert {name: method.differentiable for name, method in table.items()} == {"all_types": False, "loss": True}
    assert table["all_types"].required == {"x", "n", "f", "s", "b", "many"}


@pytest.mark.parametrize("name", ["not_remote", "close", "module", "__init__", "__class__", "_TABLES", "", "loss "])
def test_an_unknown_method_is_refused_with_the_names_of_the_table(name: str) -> None:
    with pytest.raises(UnknownMethod, match=r"agent `example` has no method `.*`; it has all_types, loss"):
        method_of(Example(), "example", name)


def test_a_method_overridden_without_the_mark_is_not_in_the_table() -> None:
    class Narrower(Example):
        def loss(self, x: torch.Tensor) -> torch.Tensor:
            return x

    assert set(methods_of(Narrower)) == {"all_types"}
    assert set(methods_of(Example)) == {"all_types", "loss"}


@pytest.mark.parametrize("changes", [{}, {"f": 2}, {"o": None}, {"o": "text"}, {"many": []}])
def test_arguments_that_fit_are_accepted(changes: dict[str, Any]) -> None:
    check(**changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", 1), ("x", [torch.ones(1)]), ("x", None), ("n", True), ("n", 1.0), ("n", "1"), ("n", torch.ones(1)),
        ("f", "1"), ("f", True), ("s", 1), ("s", None), ("b", 1), ("b", None), ("many", torch.ones(1)),
        ("many", [1]), ("many", [torch.ones(1), None]), ("o", 3),
    ],
)  # fmt: skip
def test_an_argument_of_the_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(BadArgument, match=rf"example\.all_types\({name}\): expected .*, got {type(value).__name__}"):
        check(**{name: value})


def test_a_missing_and_a_superfluous_argument_are_refused_by_name() -> None:
    method = methods_of(Example)["all_types"]
    with pytest.raises(BadArgument, match=r"example\.all_types\(n\): is missing"):
        check_arguments("example.all_types", method, {name: value for name, value in GOOD.items() if name != "n"})
    with pytest.raises(BadArgument, match=r"\(self\): no such argument; expected x, n, f, s, b, many, o"):
        check(self=1)


def test_a_hosted_module_says_which_outputs_a_gradient_reaches() -> None:
    class Mixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return x * 2, torch.ones(3), x.argmax()

    returned = ModuleAgent(Mixed()).forward([torch.ones(3, requires_grad=True)])
    assert returned["differentiable"] == [True, False, False]
    one = ModuleAgent(torch.nn.Linear(3, 2)).forward([torch.ones(3)])
    assert (len(one["outputs"]), one["differentiable"]) == (1, [True])

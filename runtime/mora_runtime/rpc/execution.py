"""Running one call on an agent: arguments in, values or gradients out. Called by `server`; never sees a socket."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mora_runtime.autograd.activations import ActivationMeter
from mora_runtime.autograd.graph_table import Graph, GraphTable
from mora_runtime.autograd.random_state import RandomState
from mora_runtime.errors import AgentFailed, BadArgument, UnknownAgent
from mora_runtime.process import faults
from mora_runtime.rpc.activity import Activity
from mora_runtime.rpc.agent import Agent, Method, check_arguments, method_of
from mora_runtime.rpc.device_time import DeviceTime
from mora_runtime.rpc.server_device import ServerDevice
from mora_runtime.tensors.marshalling import from_wire, leases_of, to_wire
from mora_runtime.tensors.tensor_store import Peer, TensorRef, TensorStore
from mora_runtime.trace import tracing
from mora_runtime.wire.codec import encode
from mora_runtime.wire.messages import Backward, Call, Part, Result

log = logging.getLogger(__name__)
_HOST = torch.device("cpu")


class Caller(Peer):
    """A client of this server."""

    def __init__(self, name: str, identity: bytes) -> None:
        super().__init__(name)
        self.identity = identity
        self.owner = identity.decode("latin-1")  # owner of its tickets in the graph table


@dataclass(frozen=True)
class _Outcome:
    """The outcome of a call or a backward."""

    values: dict[str, Any]
    gradients: dict[str, torch.Tensor] | None = None
    ticket: int | None = None
    forward: _Spent | None = None
    backward: _Spent | None = None
    norms: dict[str, float] | None = None


@dataclass(frozen=True)
class _Forward:
    """A differentiable forward: what it returned, its graph, and the memory that the graph keeps."""

    values: dict[str, Any]
    graph: Graph
    nbytes: int


class Executor:
    """Runs calls and backwards, one at a time, and keeps the graphs between them.

    Args:
        agents: by name.
        server_device: where tensor arguments are moved before an agent sees them.
        tickets: table of the graphs that wait for their backward.
        recompute: keep the arguments of a forward instead of its graph, and run it again for its backward.
    """

    def __init__(
        self,
        store: TensorStore,
        agents: Mapping[str, Agent],
        server_device: ServerDevice,
        tickets: GraphTable,
        activity: Activity,
        *,
        recompute: bool,
    ) -> None:
        self._store = store
        self._agents = agents
        self._server_device = server_device
        self._device = server_device.torch_device
        self._tickets = tickets
        self._activity = activity
        self._recompute = recompute
        self._late_failure: str | None = None

    def run(self, caller: Caller, message: Call | Backward) -> bytes:
        """Run one call; returns the frame of its RESULT.

        Raises:
            MoraError, or any exception of the agent: nothing stays leased or kept for the call.
        """
        self._activity.num_calls += 1
        outcome = self._call(caller, message) if isinstance(message, Call) else self._backward(caller, message)
        if outcome.gradients is not None:
            faults.reach("gradient_ready")
        with tracing.span("result", "protocol"):
            return self._frame(caller, message, outcome)

    def part(self, caller: Caller, number: int, values: dict[str, Any]) -> bytes:
        """Return the frame of a PART of the call that runs.

        Raises:
            MoraError: the values cannot be sent; nothing of them stays leased.
        """
        wire = to_wire(self._store, caller, values)
        self._store.collect()
        released = caller.released()
        try:
            return encode(Part(number, wire, released))
        except BaseException:
            caller.take_back(leases_of(wire))
            caller.to_release.extend(released)
            raise

    def _frame(self, caller: Caller, message: Call | Backward, outcome: _Outcome) -> bytes:
        values: dict[str, Any] = {}
        gradients: dict[str, Any] | None = None
        released: list[int] = []
        try:
            has_gradients = outcome.gradients is not None
            values = to_wire(self._store, caller, outcome.values, onward=None if has_gradients else message.onward)
            if outcome.gradients is not None:
                gradients = to_wire(self._store, caller, outcome.gradients, onward=message.onward)
            faults.reach("slot_written")
            times = (_ns(outcome.forward), _ns(outcome.backward))  # here, because a copy to host memory has waited
            self._store.collect()
            released = caller.released()
            return encode(Result(message.id, values, gradients, outcome.ticket, *times, released, outcome.norms))
        except BaseException:
            caller.take_back([*leases_of(values), *leases_of(gradients or {})])
            caller.to_release.extend(released)
            if outcome.ticket is not None:
                self._tickets.drop(caller.owner, [outcome.ticket])
            raise

    def _call(self, caller: Caller, message: Call) -> _Outcome:
        where = f"{message.agent}.{message.method}"
        # first, so that the leases of the message's tensors end even if the call is refused
        received = from_wire(self._store, caller, message.arguments)
        received_grads = from_wire(self._store, caller, message.output_grads) if message.output_grads else {}
        agent = self._agents.get(message.agent)
        if agent is None:
            raise UnknownAgent(f"no agent `{message.agent}`; this server has {', '.join(sorted(self._agents))}")
        method = method_of(agent, message.agent, message.method)
        if message.grad is not None and not method.differentiable:
            raise BadArgument(f"{where} is not differentiable; call it without grad")
        if message.grad is None and message.output_grads is not None:
            raise BadArgument(f"{where}: output_grads without grad; pass grad too, () for parameters only")
        if message.grad is None:
            return self._plain(caller, message, agent, method, received)
        return self._differentiable(caller, message, agent, method, received, received_grads)

    def _plain(self, caller: Caller, message: Call, agent: Agent, method: Method, received: dict[str, Any]) -> _Outcome:
        self._finish_late()  # the method may read gradients
        with tracing.span("arguments", "copy"):
            arguments = self._arguments(method, received, [], {})
        faults.reach("mapped")
        received.clear()
        check_arguments(f"{message.agent}.{message.method}", method, arguments)
        with self._busy(caller, f"{message.agent}.{message.method}", message.id) as spent, _without_graph():
            values = _as_dict(getattr(agent, message.method)(**arguments))
        arguments.clear()
        return _Outcome(values, forward=spent)

    def _differentiable(
        self,
        caller: Caller,
        message: Call,
        agent: Agent,
        method: Method,
        received: dict[str, Any],
        received_grads: dict[str, Any],
    ) -> _Outcome:
        where = f"{message.agent}.{message.method}"
        wanted = message.grad or []
        at_once = message.output_grads is not None
        # only kept graphs need a size; with planned faults, the meter's hooks mark the middle of a pass
        is_measured = (not at_once and not self._recompute) or faults.active is not None
        if not at_once:
            self._tickets.check_room()

        def forward() -> _Forward:
            leaves: dict[str, torch.Tensor] = {}
            with tracing.span("arguments", "copy"):
                arguments = self._arguments(method, received, wanted, leaves)
            faults.reach("mapped")
            _check_leaves(where, wanted, leaves)
            check_arguments(where, method, arguments)
            meter = ActivationMeter()
            with torch.enable_grad(), meter.measure() if is_measured else contextlib.nullcontext():
                returned = _as_dict(getattr(agent, message.method)(**arguments))
            outputs = {name: value for name, value in _named_tensors(returned).items() if value.requires_grad}
            return _Forward(returned, Graph(leaves, outputs), meter.nbytes)

        with self._busy(caller, where, message.id) as spent:
            randomness = RandomState.now(self._device) if self._recompute else None
            made = forward()
        values = _detached(made.values)
        if at_once:
            with self._busy(caller, f"{where} backward", message.id) as spent_backward:
                grads = _tensors(received_grads)
                gradients = self._tickets.run(made.graph, grads, inputs_first=message.inputs_first)
            norms = _norms(gradients, message.norms)
            return _Outcome(values, gradients, None, spent, spent_backward, norms)
        if randomness is None:
            ticket = self._tickets.keep(caller.owner, made.graph, made.nbytes)
        else:
            nbytes = sum(value.nbytes for value in _named_tensors(received).values())
            ticket = self._tickets.keep(caller.owner, _again(forward, randomness), nbytes)
        return _Outcome(values, None, ticket, spent)

    def _backward(self, caller: Caller, message: Backward) -> _Outcome:
        grads = _tensors(from_wire(self._store, caller, message.grads))
        with self._busy(caller, "backward", message.id) as spent:
            gradients = self._tickets.backward(caller.owner, message.ticket, grads, inputs_first=message.inputs_first)
        return _Outcome({}, gradients, None, None, spent, _norms(gradients, message.norms))

    def finish_late(self) -> bool:
        """Compute the late parameter gradients of `inputs_first` backwards; False when there are none.

        Raises:
            DeviceLost: the device failed, and with it this process.
        """
        if not self._tickets.has_late:
            return False
        try:
            self._finish_late()
        except Exception as error:
            # no caller waits for this; the next call that could read the gradients raises it
            log.exception("computing the parameter gradients of an answered backward failed")
            self._server_device.require_working(error)
            self._late_failure = f"{type(error).__name__}: {error}"
        return True

    def _finish_late(self) -> None:
        if self._tickets.has_late:
            with tracing.span("parameter gradients", "compute"):
                self._tickets.finish_late()
                self._server_device.wait_if_traced()
        if self._late_failure is not None:
            failure, self._late_failure = self._late_failure, None
            raise AgentFailed(f"the parameters' gradients of an earlier backward are missing: {failure}")

    def _busy(self, caller: Caller, what: str, number: int) -> _Spent:
        return _Spent(self._activity, (caller.identity, number), what, self._server_device)

    def _arguments(
        self, method: Method, received: Mapping[str, Any], grad: list[str], leaves: dict[str, torch.Tensor]
    ) -> dict[str, Any]:
        """The local values of the arguments; tensors named in `grad` become leaves that collect a gradient."""
        devices = {name: _HOST if name in method.on_host else self._device for name in received}
        return {name: self._local(name, value, devices[name], grad, leaves) for name, value in received.items()}

    def _local(
        self, name: str, value: Any, device: torch.device, grad: list[str], leaves: dict[str, torch.Tensor]
    ) -> Any:
        if isinstance(value, list):
            return [self._local(f"{name}.{index}", item, device, grad, leaves) for index, item in enumerate(value)]
        if not isinstance(value, torch.Tensor | TensorRef):
            return value
        tensor = self._store.local(value, device)
        wanted = bool(grad) and (name in grad or name.partition(".")[0] in grad)
        if wanted and tensor.is_floating_point():
            tensor = leaves[name] = tensor.detach().requires_grad_(True)
        return tensor


class _Spent:
    """Publishes what the server is busy with while a block runs, and measures the time."""

    def __init__(self, activity: Activity, call: tuple[bytes, int], what: str, device: ServerDevice) -> None:
        self._activity = activity
        self._call = call
        self._what = what
        self._device = device
        self._time = DeviceTime(device.torch_device)

    def __enter__(self) -> _Spent:
        self._span = tracing.span(self._what, "compute")
        self._span.__enter__()
        activity = self._activity
        activity.busy_since_ns = time.monotonic_ns()
        activity.busy_call, activity.busy = self._call, self._what
        self._time.__enter__()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._time.__exit__()
        try:
            if error is None:
                self._device.wait_if_traced()
        finally:
            self._span.__exit__()

    def ns(self) -> int:
        """The time that the block took on the device."""
        return self._time.ns()


def _ns(spent: _Spent | None) -> int:
    return 0 if spent is None else spent.ns()


def _without_graph() -> contextlib.AbstractContextManager[None]:
    return torch.no_grad() if torch.is_grad_enabled() else contextlib.nullcontext()


def _again(forward: Callable[[], _Forward], randomness: RandomState) -> Callable[[], Graph]:
    """Build a function that repeats the forward with the same random numbers and then restores the generators."""

    def run() -> Graph:
        now = RandomState.now(randomness.device)
        randomness.restore()
        try:
            return forward().graph
        finally:
            now.restore()

    return run


def _check_leaves(where: str, wanted: list[str], leaves: Mapping[str, torch.Tensor]) -> None:
    for name in wanted:
        if not any(leaf == name or leaf.startswith(f"{name}.") for leaf in leaves):
            raise BadArgument(f"{where}({name}): in grad, but not a floating-point tensor")


def _as_dict(returned: Any) -> dict[str, Any]:
    return returned if isinstance(returned, dict) else {"value": returned}


def _tensors(received: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    grads = {name: value.tensor() if isinstance(value, TensorRef) else value for name, value in received.items()}
    if not all(isinstance(value, torch.Tensor) for value in grads.values()):
        raise BadArgument("backward: expected every gradient to be a tensor")
    return grads


def _norms(gradients: Mapping[str, torch.Tensor], wanted: list[str] | None) -> dict[str, float] | None:
    """L2 norms in float32, for a client that needs only the norm of a gradient and passes the gradient on."""
    if wanted is None:
        return None
    with tracing.span("norms of gradients", "compute"):
        return {name: float(gradients[name].float().norm()) for name in wanted if name in gradients}


def _named_tensors(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors (or references) among values by name; those in a list are `name.0`, `name.1`, ..."""
    named: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor | TensorRef):
            named[name] = value
        elif isinstance(value, list | tuple):
            named.update(_named_tensors({f"{name}.{index}": item for index, item in enumerate(value)}))
    return named


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {name: _detached(item) for name, item in value.items()}
    return [_detached(item) for item in value] if isinstance(value, list | tuple) else value

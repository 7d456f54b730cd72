"""Every error of Mora, in one tree.

    MoraError                     code: what crosses a wire instead of a class name
    +-- ConfigurationError        wrong input from the user; nothing was started
    |   +-- SettingsError         a configuration key or value
    |   +-- DatasetError          a line or a video of the training data
    |   +-- PlacementError        a device that does not exist
    |   +-- RunExists             the run directory already contains a run
    |   +-- RunLocked             another launcher is using the run directory
    +-- EnvironmentFailed         a command of an environment failed
    +-- EndpointFailed            an external HTTP service gave no usable answer
    +-- RoleFailed                a process of the job ended or reported failure
    +-- DeviceLost                a server's GPU works no more in this process
    +-- TraceError                a trace file that cannot be read
    +-- StorageError              a file could not be written: disk full, no permission
    +-- RoundError                a round of synthesis cannot continue until something is changed
    |   +-- JudgeError            a judge's answer that cannot be read
    +-- TransportError
    |   +-- FrameError            bytes that do not decode to a message
    |   +-- ProtocolError         an unexpected message: wrong version, lock, order or type
    |   +-- PeerDied              the other process has ended
    |   +-- DeadlineExceeded      no answer in time
    +-- StoreError                the tensor store
    |   +-- BoundsError           a tensor that is outside its segment, or a dtype or shape that is not allowed
    |   +-- StaleReference        a reference to a slot on which the sender has no lease
    |   +-- SegmentRefused        a descriptor that is not a sealed memory file of the size it claims
    |   |   +-- SegmentLost       a descriptor that was not received: this process has too many open files
    |   +-- MemoryFilesForbidden  the system lets this process create no memory files
    |   +-- ArenaFull             no slot left within the budget
    |   +-- DeviceUnavailable     device memory cannot be shared here: stage through host memory instead
    |   +-- DeviceFailed          a CUDA call failed
    +-- CallError                 raised in the caller's process as the same class
    |   +-- UnknownAgent, UnknownMethod, BadArgument
    |   +-- AgentFailed           an exception inside an agent; the traceback is in the server's log
    |   +-- Cancelled
    |   +-- UnknownTicket, TicketSpent, TooManyTickets
    +-- TrainingError
        +-- StepProtocolError     prepare, commit and skip out of order
        +-- StepAborted           a step abandoned before any role changed state
        +-- CheckpointError       a checkpoint that is missing, modified, or not made by mora
        +-- TrainingDiverged      no finite gradient for too many steps

Texts say what was expected, what came, from which process or file, and what to do. They contain no path, descriptor or
id of another process: that process's own log has them.
"""

from __future__ import annotations

from typing import ClassVar


class MoraError(Exception):
    """Base of all errors of Mora."""

    code: ClassVar[str] = "mora"


class ConfigurationError(MoraError):
    """Wrong input from the user."""

    code = "configuration"


class SettingsError(ConfigurationError):
    """A configuration key or value does not fit."""

    code = "settings"


class DatasetError(ConfigurationError):
    """A line or video of the training data cannot be used."""

    code = "dataset"


class PlacementError(ConfigurationError):
    """A role is placed on a device that does not exist."""

    code = "placement"


class RunExists(ConfigurationError):
    """The run directory already contains a run."""

    code = "run_exists"


class RunLocked(ConfigurationError):
    """Another launcher has locked the run directory."""

    code = "run_locked"


class EnvironmentFailed(MoraError):
    """A command of an environment failed."""

    code = "environment"


class EndpointFailed(MoraError):
    """An external HTTP service gave no usable answer."""

    code = "endpoint"


class RoleFailed(MoraError):
    """A process of the job ended or reported failure."""

    code = "role"


class DeviceLost(MoraError):
    """A server's GPU works no more in this process; another process may use it."""

    code = "device_lost"


class TraceError(MoraError):
    """A file is not a trace of this version, or the trace lacks the requested data."""

    code = "trace"


class StorageError(MoraError):
    """A file could not be written."""

    code = "storage"


class RoundError(MoraError):
    """A round of synthesis cannot continue; it can be resumed once the cause is fixed."""

    code = "round"


class JudgeError(RoundError):
    """A judge's answer cannot be read."""

    code = "judge"


class TransportError(MoraError):
    """Messages could not be exchanged."""

    code = "transport"


class FrameError(TransportError):
    """Bytes that do not decode to a message."""

    code = "frame"


class ProtocolError(TransportError):
    """A message that is not allowed here or at this time."""

    code = "protocol"


class PeerDied(TransportError):
    """The other process has ended."""

    code = "peer_died"


class DeadlineExceeded(TransportError):
    """No answer came in time."""

    code = "deadline"


class StoreError(MoraError):
    """Base of the errors about tensors in shared memory."""

    code = "plane"


class BoundsError(StoreError):
    """A tensor that is outside its segment, or has a dtype, layout or rank that is not allowed."""

    code = "bounds"


class StaleReference(StoreError):
    """A reference to a slot on which the sender has no lease."""

    code = "stale"


class SegmentRefused(StoreError):
    """A descriptor that is not a sealed memory file of the size it claims."""

    code = "segment"


class SegmentLost(SegmentRefused):
    """A descriptor that was sent but not received, because the receiver has too many open files."""

    code = "segment_lost"


class MemoryFilesForbidden(StoreError):
    """The system lets this process create no memory files."""

    code = "memory_files"


class ArenaFull(StoreError):
    """No slot is left within the budget."""

    code = "arena_full"


class DeviceUnavailable(StoreError):
    """Device memory cannot be shared between these two processes; use host memory instead."""

    code = "device_unavailable"


class DeviceFailed(StoreError):
    """A CUDA call failed."""

    code = "device_failed"


class CallError(MoraError):
    """A call that the server refused or could not finish."""

    code = "call"


class UnknownAgent(CallError):
    """The server hosts no agent of this name."""

    code = "unknown_agent"


class UnknownMethod(CallError):
    """The agent has no such method."""

    code = "unknown_method"


class BadArgument(CallError):
    """An argument is missing, unknown or of the wrong type."""

    code = "bad_argument"


class AgentFailed(CallError):
    """An exception inside an agent."""

    code = "agent_failed"


class Cancelled(CallError):
    """The call was cancelled."""

    code = "cancelled"


class UnknownTicket(CallError):
    """The server keeps no such ticket for this caller."""

    code = "unknown_ticket"


class TicketSpent(CallError):
    """The ticket's backward has already run."""

    code = "ticket_spent"


class TooManyTickets(CallError):
    """The server already keeps as many graphs as its limits allow."""

    code = "too_many_tickets"


class TrainingError(MoraError):
    """Base of the errors of joint training."""

    code = "training"


class StepProtocolError(TrainingError):
    """The parts of a step came out of order."""

    code = "step_protocol"


class StepAborted(TrainingError):
    """A step was abandoned before any role changed state."""

    code = "step_aborted"


class CheckpointError(TrainingError):
    """A checkpoint is missing, modified, or not made by mora."""

    code = "checkpoint"


class TrainingDiverged(TrainingError):
    """Gradients were not finite for too many steps in a row."""

    code = "diverged"


def _tree(root: type[MoraError]) -> list[type[MoraError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


BY_CODE: dict[str, type[MoraError]] = {kind.code: kind for kind in _tree(MoraError)}


def error_from_code(code: str, text: str) -> MoraError:
    """Build the error that a peer named by its code; an unknown code becomes a plain `MoraError` that shows it."""
    kind = BY_CODE.get(code)
    return kind(text) if kind is not None else MoraError(f"{code}: {text}")

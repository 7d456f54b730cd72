"""Every error of Mora, in one tree.

    MoraError                     code: what crosses a wire instead of a class name
    +-- ConfigurationError        something the user gave does not fit; nothing was started
    |   +-- SettingsError         a configuration key or value
    |   +-- DatasetError          a line or a video of the training data
    |   +-- PlacementError        a device that is not there
    |   +-- RunExists             the run directory already holds a run
    |   +-- RunLocked             another launcher works on the run directory
    +-- EnvironmentFailed         an environment's own command did not do its work
    +-- EndpointFailed            a service of somebody else's gave no usable answer
    +-- RoleFailed                a process of the job ended or reported failure
    +-- TraceError                a trace file that cannot be read
    +-- StorageError              a file that could not be written: no room, no right
    +-- RoundError                a round of synthesis that cannot go on as things stand
    |   +-- JudgeError            a judge's answer that cannot be read
    +-- TransportError
    |   +-- FrameError            bytes that are no message
    |   +-- ProtocolError         a message that does not fit: version, lock, order, type
    |   +-- PeerDied              the other process is gone
    |   +-- DeadlineExceeded      no answer in time
    +-- StoreError                the tensor store
    |   +-- BoundsError           a tensor that does not lie inside its segment, or a dtype or shape that is not allowed
    |   +-- StaleReference        a reference to a slot that is no longer (or never was) the sender's to give
    |   +-- SegmentRefused        a descriptor that is not a sealed memory file of the size it claims
    |   |   +-- SegmentLost       its descriptor could not be taken: this process has too many files open
    |   +-- ArenaFull             no slot left within the budget
    |   +-- DeviceUnavailable     device memory that cannot be shared here: stage through host memory instead
    |   +-- DeviceFailed          a call of CUDA that was refused
    +-- CallError                 raised at the caller as the same class
    |   +-- UnknownAgent, UnknownMethod, BadArgument
    |   +-- AgentFailed           an exception inside an agent; the traceback is in the server's log
    |   +-- Cancelled
    |   +-- UnknownTicket, TicketSpent, TooManyTickets
    +-- TrainingError
        +-- StepProtocolError     prepare, commit and skip out of order
        +-- StepAborted           a step given up before any role changed
        +-- CheckpointError       a checkpoint that is missing, changed or foreign
        +-- TrainingDiverged      no finite gradient for too many steps

Texts say what was expected, what came, whose it was and what to do. They carry no path, descriptor or id of another
process: those stand in that process's own log.
"""

from __future__ import annotations

from typing import ClassVar


class MoraError(Exception):
    """Base of all errors of Mora."""

    code: ClassVar[str] = "mora"


class ConfigurationError(MoraError):
    """Something the user gave does not fit."""

    code = "configuration"


class SettingsError(ConfigurationError):
    """A configuration key or value does not fit."""

    code = "settings"


class DatasetError(ConfigurationError):
    """A line or video of the training data cannot be used."""

    code = "dataset"


class PlacementError(ConfigurationError):
    """A role is placed on a device that is not there."""

    code = "placement"


class RunExists(ConfigurationError):
    """The run directory already holds a run."""

    code = "run_exists"


class RunLocked(ConfigurationError):
    """Another launcher holds the run directory."""

    code = "run_locked"


class EnvironmentFailed(MoraError):
    """A command of an environment failed."""

    code = "environment"


class EndpointFailed(MoraError):
    """A service of somebody else's, asked over HTTP, gave no usable answer."""

    code = "endpoint"


class RoleFailed(MoraError):
    """A process of the job ended or reported failure."""

    code = "role"


class TraceError(MoraError):
    """A file that is no trace of this version, or a trace without what was asked of it."""

    code = "trace"


class StorageError(MoraError):
    """A file could not be written."""

    code = "storage"


class RoundError(MoraError):
    """A round of synthesis cannot go on as things stand; it can be resumed once that has changed."""

    code = "round"


class JudgeError(RoundError):
    """A judge's answer cannot be read."""

    code = "judge"


class TransportError(MoraError):
    """Messages could not be exchanged."""

    code = "transport"


class FrameError(TransportError):
    """Bytes that are no message."""

    code = "frame"


class ProtocolError(TransportError):
    """A message that does not fit here or now."""

    code = "protocol"


class PeerDied(TransportError):
    """The other process is gone."""

    code = "peer_died"


class DeadlineExceeded(TransportError):
    """No answer came in time."""

    code = "deadline"


class StoreError(MoraError):
    """Something about tensors in shared memory."""

    code = "plane"


class BoundsError(StoreError):
    """A tensor that does not fit its segment, or is of a kind that is not allowed."""

    code = "bounds"


class StaleReference(StoreError):
    """A reference to a slot that is not the sender's to give."""

    code = "stale"


class SegmentRefused(StoreError):
    """A descriptor that is not a sealed memory file of the size it claims."""

    code = "segment"


class SegmentLost(SegmentRefused):
    """A descriptor that came and could not be taken, because the receiver may open no more files."""

    code = "segment_lost"


class ArenaFull(StoreError):
    """No slot is left within the budget."""

    code = "arena_full"


class DeviceUnavailable(StoreError):
    """Device memory cannot be shared between these two processes; tensors go through host memory instead."""

    code = "device_unavailable"


class DeviceFailed(StoreError):
    """CUDA refused a call."""

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
    """An argument is missing, superfluous or does not fit."""

    code = "bad_argument"


class AgentFailed(CallError):
    """An exception inside an agent."""

    code = "agent_failed"


class Cancelled(CallError):
    """The call was cancelled."""

    code = "cancelled"


class UnknownTicket(CallError):
    """No such ticket is held for this caller."""

    code = "unknown_ticket"


class TicketSpent(CallError):
    """The ticket's backward has already run."""

    code = "ticket_spent"


class TooManyTickets(CallError):
    """The server holds as many graphs as it may."""

    code = "too_many_tickets"


class TrainingError(MoraError):
    """Something about joint training."""

    code = "training"


class StepProtocolError(TrainingError):
    """The parts of a step came out of order."""

    code = "step_protocol"


class StepAborted(TrainingError):
    """A step was given up before any role changed."""

    code = "step_aborted"


class CheckpointError(TrainingError):
    """A checkpoint is missing, changed or foreign."""

    code = "checkpoint"


class TrainingDiverged(TrainingError):
    """Gradients were not finite for too many steps in a row."""

    code = "diverged"


def _tree(root: type[MoraError]) -> list[type[MoraError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


BY_CODE: dict[str, type[MoraError]] = {kind.code: kind for kind in _tree(MoraError)}


def error_from_code(code: str, text: str) -> MoraError:
    """The error that a peer named by its code; an unknown code becomes a plain `MoraError` that shows it."""
    kind = BY_CODE.get(code)
    return kind(text) if kind is not None else MoraError(f"{code}: {text}")

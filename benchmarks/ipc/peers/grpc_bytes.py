"""gRPC over a Unix socket; request and response of a generic method (no generated code) are the tensor's bytes."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import torch

from benchmarks.ipc.contestant import DEADLINE_S, Contestant
from benchmarks.ipc.lifetime import EchoServer, die_with_parent, say_ready

_SERVICE = "mora.bench.Echo"
# by default gRPC refuses messages above 4 MiB
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class GrpcBytes(Contestant):
    """The caller's side."""

    name = "grpc"
    note = "message limit raised from 4 MiB to none"

    def __init__(self, folder: Path) -> None:
        self._target = f"unix:{folder}/grpc.sock"
        self._server = EchoServer(__name__, [self._target])

    def start(self) -> None:
        self._server.wait_ready()
        self._channel = grpc.insecure_channel(self._target, options=_OPTIONS)
        self._add_one = self._channel.unary_unary(f"/{_SERVICE}/add_one")
        self._stop = self._channel.unary_unary(f"/{_SERVICE}/stop")

    def echo(self, x: torch.Tensor) -> torch.Tensor:
        return torch.frombuffer(self._add_one(x.numpy().tobytes(), timeout=DEADLINE_S), dtype=torch.float32)

    def close(self) -> None:
        self._stop(b"", timeout=DEADLINE_S)
        self._channel.close()
        self._server.close()


def contestants(folder: Path) -> list[Contestant]:
    """The contestants for the caller."""
    return [GrpcBytes(folder)]


def _add_one(request: bytes, context: grpc.ServicerContext) -> bytes:
    y: bytes = (torch.frombuffer(request, dtype=torch.float32) + 1).numpy().tobytes()
    return y


def serve(target: str) -> None:
    """Answer until `stop` is called."""
    stopped = threading.Event()

    def stop(request: bytes, context: grpc.ServicerContext) -> bytes:
        stopped.set()
        return b""

    server = grpc.server(ThreadPoolExecutor(1), options=_OPTIONS)
    handlers = {
        "add_one": grpc.unary_unary_rpc_method_handler(_add_one),
        "stop": grpc.unary_unary_rpc_method_handler(stop),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    server.add_insecure_port(target)
    server.start()
    say_ready()
    stopped.wait()  # waits as long as the caller lives; this process dies with it
    server.stop(grace=2).wait(10)


if __name__ == "__main__":
    import warnings

    die_with_parent()
    warnings.filterwarnings("ignore", message="The given buffer is not writable")
    torch.set_num_threads(1)
    serve(sys.argv[1])

"""A tensor from actor to actor through Mora's transport against Ray's object store: python compare.py [NUM_MBYTES]

The ways take turns, so that other load on the machine meets all of them. Ray's object store copies tensors and lets
receivers read numpy arrays in place, so it is measured with both.
"""

import os
import statistics
import sys
import time
from typing import Any

import ray
import torch
from mora_transport import empty, register

NUM_WARM_UPS = 3
NUM_ROUNDS = 15
register()


@ray.remote(num_cpus=0, enable_tensor_transport=True)
class Source:
    def __init__(self, nbytes: int) -> None:
        self.made = torch.ones(nbytes // 4)
        self.resident = empty([nbytes // 4]).fill_(1.0)

    def by_object_store(self) -> torch.Tensor:
        return self.made

    def by_object_store_as_numpy(self) -> Any:
        return self.made.numpy()

    @ray.method(tensor_transport="mora")
    def by_mora(self) -> torch.Tensor:
        return self.made

    @ray.method(tensor_transport="mora")
    def by_mora_resident(self) -> torch.Tensor:
        return self.resident


@ray.remote(num_cpus=0, enable_tensor_transport=True)
class Sink:
    def take(self, x: Any) -> float:
        return float(x[-1])


def measured_ms(make: Any, sink: Any) -> float:
    """Time from the call of the source to the answer of the sink."""
    started_s = time.perf_counter()
    value = ray.get(sink.take.remote(make.remote()))
    elapsed_ms = (time.perf_counter() - started_s) * 1e3
    assert value == 1.0, f"expected 1.0, got {value}"
    return elapsed_ms


def main(nbytes: int) -> None:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=max(512 << 20, 8 * nbytes))
    source, sink = Source.remote(nbytes), Sink.remote()
    ways = {
        "object store, tensor": source.by_object_store,
        "object store, numpy": source.by_object_store_as_numpy,
        "mora": source.by_mora,
        "mora, resident": source.by_mora_resident,
    }
    times_ms: dict[str, list[float]] = {name: [] for name in ways}
    load = os.getloadavg()[0]
    for number in range(NUM_WARM_UPS + NUM_ROUNDS):
        for name, make in ways.items():
            elapsed_ms = measured_ms(make, sink)
            if number >= NUM_WARM_UPS:
                times_ms[name].append(elapsed_ms)
    base_ms = statistics.median(times_ms["object store, tensor"])
    print(f"{nbytes >> 20} MB, {NUM_ROUNDS} rounds, load {load:.1f} to {os.getloadavg()[0]:.1f}")
    for name, each in times_ms.items():
        median_ms = statistics.median(each)
        print(f"{name}: median {median_ms:.1f} ms, least {min(each):.1f} ms, {base_ms / median_ms:.1f} times as fast")
    ray.shutdown()


if __name__ == "__main__":
    main((int(sys.argv[1]) if len(sys.argv) > 1 else 64) << 20)

"""Two Ray actors that pass tensors through Mora's shared memory: python two_actors.py

Needs `pip install ray` and `pip install ./runtime`.
"""

import ray
import torch
from mora_transport import empty, register

register()


@ray.remote(num_cpus=0, enable_tensor_transport=True)
class Source:
    @ray.method(tensor_transport="mora")
    def copied(self) -> torch.Tensor:
        return torch.arange(1 << 20, dtype=torch.float32)  # copied once, into shared memory

    @ray.method(tensor_transport="mora")
    def in_place(self) -> torch.Tensor:
        made = empty([1 << 20])
        return torch.arange(1 << 20, out=made)  # made in shared memory: not copied at all


@ray.remote(num_cpus=0, enable_tensor_transport=True)
class Sink:
    def total(self, x: torch.Tensor) -> float:
        return float(x.double().sum())  # x is a view of the source's memory


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False)
    source, sink = Source.remote(), Sink.remote()
    expected = float(torch.arange(1 << 20).double().sum())
    for made in (source.copied.remote(), source.in_place.remote()):
        total = ray.get(sink.total.remote(made))
        assert total == expected, f"expected {expected}, got {total}"
    print("both tensors arrived")
    ray.shutdown()

"""The pickle inside an archive of torch, read without running any of it: tensors become descriptions.

A pickle calls what it names. `find_class` gives out only classes of this module, which build plain values, and
refuses every other name. A module of a TorchScript archive becomes a dictionary of its attributes; its code is not
read.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from mora_env_vbench.weights.errors import WeightsRefused

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
_PLAIN_TYPES = ("bool", "complex", "dict", "float", "int", "list", "object", "set", "str", "tuple")
_NAMES_IN_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # in pickles of torch
_MAX_NESTING = 64


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is in an archive; nothing of it has been read.

    Attributes:
        key: of its storage.
        offset, shape, stride: counted in elements of the storage.
        num_stored: elements of the whole storage.
    """

    key: str
    dtype: torch.dtype
    num_stored: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    num_elements: int


class _Fixed(type):
    """Type of the classes that a pickle can name: it cannot change them."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("it changes a class")


class _Module(metaclass=_Fixed):
    """A module of a TorchScript archive: only its attributes are kept."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"expected the attributes of a module, got {type(state).__name__}")
        self.attributes = state


class _Tensor(metaclass=_Fixed):
    """Stands for the function that makes a tensor of a storage; it makes a `StoredTensor`."""

    def __new__(cls, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:  # type: ignore[misc]
        sizes = (offset, *shape, *stride)
        if not isinstance(storage, _Storage) or not all(type(size) is int and size >= 0 for size in sizes):
            raise pickle.UnpicklingError("expected a tensor with a storage and sizes of at least 0")
        if len(shape) != len(stride):
            raise pickle.UnpicklingError(f"expected one stride a size of a tensor, got {len(stride)} of {len(shape)}")
        return StoredTensor(storage.key, storage.dtype, storage.num_elements, offset, tuple(shape), tuple(stride))


class _First(metaclass=_Fixed):
    """Stands for functions that only mark their first argument, as a parameter for example."""

    def __new__(cls, value: Any, *_: Any) -> Any:
        return value


class _Ignored(metaclass=_Fixed):
    """Stands for settings and numbers that training scripts store next to weights: it takes anything, does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take any arguments."""

    def __setstate__(self, state: Any) -> None:
        """Take any state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take any entry."""

    def append(self, value: Any) -> None:
        """Take any element."""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _First,
    ("torch.jit._pickle", "restore_type_tag"): _First,
    **{("torch.jit._pickle", name): list for name in _LISTS},
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    ("_codecs", "encode"): _Ignored,
    ("collections", "defaultdict"): _Ignored,
    ("copyreg", "_reconstructor"): _Ignored,
    **{("builtins", name): _Ignored for name in _PLAIN_TYPES},
}
_IGNORED_PACKAGES = ("argparse", "numpy", "omegaconf", "typing")


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """An inert class of this module or a plain type. Nothing that the pickle names is imported."""
        module = _NAMES_IN_PYTHON_2.get(module, module)
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module.partition(".")[0] in _IGNORED_PACKAGES:
            return _Ignored
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names `{module}.{name}`, and a file of weights has no use for that")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: its elements are in a file of their own."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("expected a reference to a storage")
        _, dtype, key, _, num_elements = pid[:5]
        is_sound = isinstance(dtype, torch.dtype) and isinstance(key, str) and key.isalnum()
        if not is_sound or type(num_elements) is not int or num_elements < 0:
            raise pickle.UnpicklingError("expected a storage with a type, a name and a length")
        return _Storage(key, dtype, num_elements)


def stored_tensors(content: bytes, owner: str) -> dict[str, StoredTensor]:
    """All tensors of a pickle by the path to them, with dots, such as `state_dict.conv1.weight`.

    Args:
        owner: the file; errors begin with it.

    Raises:
        WeightsRefused: the pickle is damaged, or names anything besides tensors and plain values.
    """
    try:
        found = _TensorUnpickler(io.BytesIO(content), encoding="utf-8").load()
        tensors: dict[str, StoredTensor] = {}
        _collect(found, "", tensors, _MAX_NESTING)
        return tensors
    except Exception as error:
        # a damaged pickle raises any class
        raise WeightsRefused(f"{owner}: expected a file of weights that holds only tensors: {error}") from error


def _collect(value: Any, path: str, tensors: dict[str, StoredTensor], depth: int) -> None:
    if depth == 0:
        raise pickle.UnpicklingError(f"expected at most {_MAX_NESTING} levels of nesting")
    if isinstance(value, StoredTensor):
        tensors[path] = value
    children = value.attributes if isinstance(value, _Module) else value
    if isinstance(children, dict):
        for name, child in children.items():
            if isinstance(name, str):
                _collect(child, f"{path}.{name}" if path else name, tensors, depth - 1)

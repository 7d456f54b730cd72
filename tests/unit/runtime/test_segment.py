"""Only sealed memory files of the claimed size are mapped."""

import fcntl
import os
import socket
from pathlib import Path

import psutil
import pytest
from mora_runtime.errors import SegmentRefused
from mora_runtime.tensors.segment import Segment, check_descriptor

SHRINK_AND_GROW = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def memory_file(nbytes: int, seals: int) -> int:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, nbytes)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def test_what_the_owner_writes_the_other_side_reads() -> None:
    owner = Segment.create(8192)
    reader = Segment.attach(os.dup(owner.descriptor), 8192)
    owner.buffer[5000:5003] = b"abc"
    assert bytes(reader.buffer[5000:5003]) == b"abc"
    owner.close()
    reader.close()


def test_a_mapping_outlives_its_descriptor() -> None:
    segment = Segment.create(4096)
    view = segment.buffer[:4]
    view[:] = b"abcd"
    segment.close()
    segment.close()
    assert bytes(view) == b"abcd"


def test_a_segment_cannot_be_shrunk_grown_or_unsealed() -> None:
    segment = Segment.create(8192)
    for nbytes in (0, 4096, 16384):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.descriptor, nbytes)
    with pytest.raises(PermissionError):
        fcntl.fcntl(segment.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    segment.close()


def test_the_memory_of_a_segment_is_allocated_at_once() -> None:
    segment = Segment.create(1 << 20)
    assert os.fstat(segment.descriptor).st_blocks * 512 >= 1 << 20
    segment.close()


def test_a_segment_that_the_machine_cannot_hold_is_an_error_and_leaks_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        Segment.create(psutil.virtual_memory().total + 4096)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_SHRINK, SHRINK_AND_GROW, fcntl.F_SEAL_SEAL])
def test_a_file_that_lacks_a_seal_is_refused(seals: int) -> None:
    descriptor = memory_file(4096, seals)
    with pytest.raises(SegmentRefused, match="unsealed"):
        Segment.attach(descriptor, 4096)
    os.close(descriptor)


@pytest.mark.parametrize("claimed", [4095, 4097, 8192, 0, -1, 1 << 63])
def test_a_size_that_differs_from_the_files_is_refused(claimed: int) -> None:
    descriptor = memory_file(4096, SHRINK_AND_GROW | fcntl.F_SEAL_SEAL)
    with pytest.raises(SegmentRefused, match=f"4096 bytes as a segment of {claimed} bytes"):
        Segment.attach(descriptor, claimed)
    os.close(descriptor)


def test_an_empty_file_is_refused() -> None:
    descriptor = memory_file(0, SHRINK_AND_GROW | fcntl.F_SEAL_SEAL)
    with pytest.raises(SegmentRefused, match="0 bytes as a segment of 0 bytes"):
        Segment.attach(descriptor, 0)
    os.close(descriptor)


def test_a_file_shrunk_before_it_was_sealed_is_refused() -> None:
    descriptor = memory_file(8192, 0)
    os.ftruncate(descriptor, 4096)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SHRINK_AND_GROW | fcntl.F_SEAL_SEAL)
    with pytest.raises(SegmentRefused, match="4096 bytes as a segment of 8192 bytes"):
        Segment.attach(descriptor, 8192)
    os.close(descriptor)


def test_a_pipe_a_socket_and_a_directory_are_refused(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    folder = os.open(tmp_path, os.O_RDONLY)
    one, other = socket.socketpair()
    for descriptor in (reading, writing, folder, one.fileno()):
        with pytest.raises(SegmentRefused, match="not a memory file"):
            check_descriptor(descriptor, 4096)
    for descriptor in (reading, writing, folder):
        os.close(descriptor)
    one.close()
    other.close()


def test_a_file_on_disk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(4096))
    with open(tmp_path / "file", "rb") as file, pytest.raises(SegmentRefused):
        check_descriptor(file.fileno(), 4096)

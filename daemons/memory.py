"""What a process has in use of the memory that it holds: a small leak shows there long before the process grows."""

import ctypes
import sys
from typing import ClassVar

from prometheus_client import CollectorRegistry, Gauge


class _Mallinfo2(ctypes.Structure):
    """Of mallinfo(3)."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def count_memory(metrics: CollectorRegistry) -> None:
    """Objects of Python, and bytes in use from the C library, where that counts them (glibc 2.33 and later)."""
    blocks = Gauge("callbox_python_blocks", "Blocks of memory that Python's objects take", registry=metrics)
    blocks.set_function(sys.getallocatedblocks)
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return
    mallinfo2.restype = _Mallinfo2
    allocated = Gauge("callbox_malloc_used_bytes", "Memory in use from the C library's malloc", registry=metrics)

    def used_bytes() -> int:
        info = mallinfo2()
        return int(info.uordblks + info.hblkhd)

    allocated.set_function(used_bytes)

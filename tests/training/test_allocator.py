"""Memory that steps free and take again is not faulted in anew each time."""

import subprocess
import sys

import pytest

# In a process of its own: what others did before changes where the allocator finds memory.
MEASURE = """
import resource, torch
from teleflm.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        held = [torch.ones(4 << 20) for _ in range(6)]
        del held  # 96 MiB at once, as at the end of a backward pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator only")
def test_freed_memory_is_kept() -> None:
    out = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True).stdout
    # Else it is up to 24,576 pages a round, though on a lucky heap it may be none.
    assert int(out) < 24_576

"""Memory that steps free and take again is not faulted in anew each time."""

import resource
import sys

import pytest
import torch

from teleflm.training.allocator import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator only")
def test_freed_memory_is_kept() -> None:
    keep_freed_memory()
    torch.ones(4 << 20).sum()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(4 << 20).sum()
    # 16 MiB are 4,096 pages, each of them a fault where the system gets them back in between.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 4096

"""What is done to every block of a network, on one process and on a mesh alike."""

import torch

from teleflm.config.run import Recomputation
from teleflm.model.network import TeleFLM
from teleflm.parallel.recomputation import recompute


def wrap_blocks(
    network: TeleFLM, recomputation: Recomputation, *, compiled: bool, rank: str = "one process"
) -> None:
    """Have the blocks compute again what they do not keep, and compile them, in this order.

    Args:
        network: what each rank computes of a layer is settled, its weights are not yet sharded.
        recomputation: what forward keeps of a block.
        compiled: whether blocks go through torch.compile.
        rank: what compiled code may differ by that is not in the network: two of the same words
            share PyTorch's cache of it on disk.
    """
    if compiled:
        # The cache overlooks for how wide a vector code was written: under a processor with another
        # width (or ATEN_CPU_CAPABILITY) it leaves numbers out, or writes past its buffers.
        width = torch.backends.cpu.get_cpu_capability()
        torch.compiler.config.cache_key_tag = f"{rank}, {width}"
    for block in network.model.layers:
        # Inside of what is compiled, so that the compiler sees what is computed again.
        recompute(block, recomputation)
        # Block by block: one graph for all, and FSDP's hooks stay outside of it.
        if compiled:
            block.compile()

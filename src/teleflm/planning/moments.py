"""The moments of a step at which its memory may be largest."""

from teleflm.planning.share import Share


def peak_beyond(share: Share, gradients: int) -> int:
    """The most bytes beyond parameters and optimizer, gradients among them.

    Args:
        share: the rank's part.
        gradients: bytes of its own gradients when they have travelled.
    """
    always = _batch(share) + _tables(share) + _receive_buffers(share)
    pipeline = share.layout.pp > 1
    weights = _whole(share) * share.stream
    sums = _whole(share) * max(share.reduced, share.stream)
    in_flight = _in_flight(share)
    many = share.micro_batches > 1
    if pipeline:
        stays = sum(in_flight[i] * _stage(share, i) for i in range(len(share.layers)))
        last = _stage(share, len(share.layers) - 1)
        steady = share.micro_batches > in_flight[-1]
        before = sums if steady else 0
        moments = [weights + before + stays + _turn(share)]
        if not steady:
            moments.append(weights + sums + stays - last + _turn(share))
        moments.append(weights + sums + share.block * share.reduced)
    else:
        stays = _stage(share, 0)
        before = sums if many else 0
        travels = share.block * share.stream
        root = share.root * share.stream
        moments = [before + stays + root + travels + _loss(share)]
        moments.append(
            before + stays + root + 2 * travels + _saved_loss(share) + _turn_block(share)
        )
        # The last micro-batch: gradients travel as they come.
        moments.append(sums + 2 * share.block * share.reduced + travels)
    moments.append(gradients)
    return always + max(moments)


def _batch(share: Share) -> int:
    sequences = share.tokens // share.sequence * share.micro_batches
    return 8 * sequences * (share.sequence + 1)


def _tables(share: Share) -> int:
    return 2 * share.positions * share.head_dim * 4 * len(share.layers)


def _receive_buffers(share: Share) -> int:
    """Of the stream, for every micro-batch of the step, forward and backward."""
    if share.layout.pp == 1:
        return 0
    ends = 2 * len(share.layers) - share.has_embedding - share.has_head
    return share.micro_batches * ends * _stream(share)


def _stream(share: Share) -> int:
    return share.own_tokens * share.hidden * share.stream


def _whole(share: Share) -> int:
    return sum(share.groups)


def _in_flight(share: Share) -> list[int]:
    """Micro-batches of each of the rank's stages that are between forward and backward."""
    layout, stages = share.layout, len(share.layers)
    behind = layout.pp - share.pipeline_rank
    if stages == 1:
        return [min(behind, share.micro_batches)]
    rounds = max(1, share.micro_batches // layout.pp)
    each = share.micro_batches // rounds
    slope = 2 if share.schedule == "interleaved" else 1
    warm = (stages - 1) * each + slope * (behind - 1) + 1
    found = [0] * stages
    for step in range(min(warm, stages * share.micro_batches)):
        found[step // each % stages] += 1
    return found


def _stage(share: Share, index: int) -> int:
    """What a micro-batch in flight keeps of a stage."""
    first = share.has_embedding and index == 0
    last = share.has_head and index == len(share.layers) - 1
    size = share.layers[index] * _block_kept(share)
    if share.layout.pp > 1:
        # What it gives stays; what it is given is in a receive buffer.
        size += _stream(share) * (not last)
        if not first and (share.stream == share.wide or share.recomputation != "none"):
            size -= _stream(share)
    return size


def _norm(share: Share) -> int:
    """Of an RMSNorm: its input and that divided by its size, and what its linears read."""
    own = share.own_tokens * (2 * share.hidden + 1) * share.wide
    return own + share.tokens * share.hidden * share.compute


def _block(share: Share) -> int:
    """What backward through a block reads."""
    attention = share.tokens * 2 * (share.heads_width + share.groups_width) * share.compute
    attention += 4 * share.tokens * share.heads_width // share.head_dim
    if share.compute < 4:
        attention += 4 * share.sequence * share.head_dim * share.compute
    mlp = 4 * share.tokens * share.ffn * share.compute
    copies = share.block_matrices * share.compute if share.casts else 0
    return 2 * _norm(share) + attention + mlp + copies


def _block_kept(share: Share) -> int:
    if share.recomputation == "none":
        return _block(share)
    size = _stream(share)
    if share.recomputation == "selective":
        widths = 2 * share.heads_width + 2 * share.groups_width + 2 * share.ffn + 2 * share.hidden
        size += share.tokens * widths * share.compute
        size += 4 * share.tokens * share.heads_width // share.head_dim
    return size


def _turn_block(share: Share) -> int:
    """What comes on top when backward begins with a block."""
    again = 0
    if share.recomputation != "none":
        again = (
            _block(share) - _block_kept(share)
            if share.recomputation == "selective"
            else (_block(share) - (_stream(share) if share.stream == share.wide else 0))
        )
    tokens = share.tokens * (share.hidden + share.ffn) + share.own_tokens * share.hidden
    return again + _stream(share) + (tokens + share.hidden * share.ffn) * share.compute


def _loss(share: Share) -> int:
    c, w = share.compute, share.wide
    logits = share.loss_rows * share.head // share.hidden
    chunks = -(-share.tokens // share.loss_rows)
    size = share.head * (w + c + (c if share.casts else 0))
    size += 2 * share.tokens * share.hidden * c + _norm(share)
    return size + logits * (w + c) * min(chunks, 2)


def _saved_loss(share: Share) -> int:
    return share.head * share.wide * 2 + 2 * share.tokens * share.hidden * share.compute


def _turn(share: Share) -> int:
    if share.has_head:
        return max(_loss(share), _saved_loss(share) + _turn_block(share))
    return _turn_block(share)

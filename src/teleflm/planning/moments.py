"""The moments of a step at which its memory may be largest."""

from teleflm.parallel.in_flight import LETS_GO
from teleflm.planning.share import Share


def peak_beyond(share: Share, gradients: int) -> int:
    """The most bytes beyond parameters and optimizer, gradients among them.

    Args:
        share: the rank's part.
        gradients: bytes of its own gradients when they have travelled.
    """
    always = _batch(share) + _tables(share) + _received(share) + _sent(share)
    moments = _with_pipeline(share) if share.layout.pp > 1 else _without_pipeline(share)
    return always + max(*moments, gradients)


def _with_pipeline(share: Share) -> list[int]:
    weights, sums = _whole(share) * share.stream, _sums(share)
    stays = _stays(share)
    if share.micro_batches > _in_flight(share)[-1]:
        # With the pipeline full there are gradients already, which stay whole until the last.
        passing = [sums + stays + turn for turn in _turns(share)]
    else:
        left = stays - _stage(share, len(share.layers) - 1)
        passing = [max(stays, sums + left) + turn for turn in _turns(share)]
    over = sums + stays - _stage(share, 0) + _embedding_backward(share)
    return [
        weights + moment for moment in (*passing, over, sums + 2 * _largest(share) * share.reduced)
    ]


def _without_pipeline(share: Share) -> list[int]:
    sums = _sums(share)
    before = sums if share.micro_batches > 1 else 0
    forward, *backward = _turns(share)
    if share.layout.ranks == 1:
        base = before + _stage(share, 0)
        return [base + turn for turn in (forward, *backward)] + [sums + _embedding_backward(share)]
    block, head = share.block * share.stream, share.root * share.stream
    # What was gathered last is still there; backward, the next block comes ahead of its turn.
    base = before + _stage(share, 0) + head + (block if share.layout.dp_shard > 1 else 0)
    return [
        base + forward,
        *(base + block + turn for turn in backward),
        sums + max(2 * _largest(share) * share.reduced, _embedding_backward(share)) + block,
    ]


def _batch(share: Share) -> int:
    """Tokens and their targets."""
    return 2 * 8 * share.tokens * share.micro_batches


def _tables(share: Share) -> int:
    return 2 * share.sequence * share.head_dim * 4 * len(share.layers)


def _received(share: Share) -> int:
    """Of the stream: the gradient that a stage received last, until the next one's is there."""
    return _stream(share) * (share.layout.pp > 1 and not share.has_head)


def _sent(share: Share) -> int:
    """Of the stream, sent and not yet waited for, which `1f1b` alone does on the way.

    From PyTorch 2.15 on the others wait for an activation when its gradient is back.
    """
    if share.layout.pp == 1 or share.schedule == "1f1b":
        return 0
    count = 0
    for at, in_flight in enumerate(_in_flight(share)):
        done = share.micro_batches - in_flight
        activations = not share.ends_in(at) and not LETS_GO
        count += done * activations + done * (not share.begins_in(at))
    return count * _stream(share)


def _stream(share: Share) -> int:
    return share.own_tokens * share.hidden * share.stream


def _whole(share: Share) -> int:
    return sum(share.groups)


def _sums(share: Share) -> int:
    """Whole gradients, until they travel."""
    return _whole(share) * share.reduced


def _embedding_backward(share: Share) -> int:
    """A micro-batch's own gradient of the embedding, at its very end."""
    return share.embedding * share.has_embedding * share.stream


def _largest(share: Share) -> int:
    return max(share.groups)


def _stays(share: Share) -> int:
    return sum(count * _stage(share, at) for at, count in enumerate(_in_flight(share)))


def _in_flight(share: Share) -> list[int]:
    """Micro-batches of each of the rank's stages that are between forward and backward."""
    layout, stages = share.layout, len(share.layers)
    behind = layout.pp - share.pipeline_rank
    if share.schedule == "1f1b":
        return [min(behind, share.micro_batches)]
    rounds = max(1, share.micro_batches // layout.pp)
    each = share.micro_batches // rounds
    slope = 2 if share.schedule == "interleaved" else 1
    warm = (stages - 1) * each + slope * (behind - 1) + _unfinished(share)
    found = [0] * stages
    for step in range(min(warm, stages * share.micro_batches)):
        found[step // each % stages] += 1
    return found


def _unfinished(share: Share) -> int:
    """Micro-batches of a stage that are going backward: with `zero_bubble` those too whose weights'
    gradients are put off."""
    return 1 + (share.pipeline_rank if share.splits_backward else 0)


def _stage(share: Share, index: int) -> int:
    """What a micro-batch in flight keeps of a stage."""
    first, last = share.begins_in(index), share.ends_in(index)
    size = share.layers[index] * _block_kept(share)
    if share.recomputation == "none":
        size += _folded(share, sum(share.masked[index]))
        size += share.windowed[index] * _window(share)
    if share.layout.pp > 1:
        # What it gives stays, and what it is given, which its first norm may keep anyway.
        size += _stream(share) * (not last)
        is_kept = share.stream == share.wide or share.recomputation != "none"
        size += _stream(share) * (not first and not is_kept)
    return size


def _norm(share: Share) -> int:
    """Of an RMSNorm: its input, alone or with that divided by its size; what its linears read."""
    own = share.own_tokens * (share.norm_keeps * share.hidden + 1) * share.wide
    return own + share.tokens * share.hidden * share.compute


def _block(share: Share) -> int:
    """What backward through a block reads."""
    attention = share.tokens * 2 * (share.heads_width + share.groups_width) * share.attention
    if share.attention != share.compute:
        # What the product behind it reads.
        attention += share.tokens * share.heads_width * share.compute
    attention += 4 * share.tokens * share.heads_width // share.head_dim
    if share.compute < 4:
        attention += 4 * share.sequence * share.head_dim * share.compute
    if share.qk_norm:
        # Their inputs, as `_norm` keeps its own; what they give RoPE does not keep.
        entries = share.heads_width + share.groups_width
        heads = entries // share.head_dim
        attention += share.tokens * (share.norm_keeps * entries + heads) * share.wide
    mlp = 4 * share.tokens * share.ffn * share.compute
    copies = share.block_matrices * share.compute if share.casts else 0
    return 2 * _norm(share) + attention + mlp + copies


def _block_kept(share: Share) -> int:
    if share.recomputation == "none":
        return _block(share)
    size = _stream(share)
    if share.recomputation == "selective":
        widths = share.heads_width + 2 * share.groups_width + 2 * share.ffn + 2 * share.hidden
        size += share.tokens * widths * share.compute
        size += share.tokens * share.heads_width * share.attention
        size += 4 * share.tokens * share.heads_width // share.head_dim
    return size


def _turns(share: Share) -> list[int]:
    """What comes on top of what stays, when a forward pass ends and when a backward one begins."""
    copies = 0
    if share.recomputation != "none" and share.casts:
        # Autocast's memory of the weights it has cast, until the pass is over; products with masks
        # are no weights, and it forgets them.
        matrices = share.layers[-1] * share.block_matrices - sum(share.masked[-1])
        copies = matrices * share.compute
    forward = copies + (_loss(share) if share.has_head else _block_forward(share))
    backward = [_block_backward(share)]
    if share.has_head:
        backward.append(_loss_backward(share))
    if share.splits_backward:
        waiting = _put_off(share) * (_unfinished(share) - 1)
        turn = 3 * _stream(share) + share.head * share.wide * share.has_head
        return [forward + waiting, _put_off(share) + waiting + turn]
    return [forward, *backward]


def _block_forward(share: Share) -> int:
    c, (tokens, own) = share.compute, (share.tokens, share.own_tokens)
    # The branch on its way into the stream, in the order in which it travels too.
    branch = tokens * share.hidden * c
    if share.layout.tp > 1:
        branch += (tokens + 3 * own) * share.hidden * c
    streams = 2 * _stream(share)
    if share.recomputation == "none":
        return branch + (streams if share.stream != share.wide else 0)
    gathered, wide = tokens * share.hidden * c, tokens * share.ffn * c
    return streams + gathered + max(3 * wide, wide + branch)


def _folded(share: Share, masked: int) -> int:
    """Matrices with their masks multiplied in, as products read them. Where a pass has its own
    copies of all weights anyway, these take the place of them."""
    return 0 if share.casts else masked * share.compute


def _window(share: Share) -> int:
    """What attention adds to its scores in a layer that sees a window only."""
    return share.sequence**2 * share.attention


def _again(share: Share) -> int:
    """What of a block is computed again."""
    if share.recomputation == "none":
        return 0
    block = _block(share) + _folded(share, max(map(max, share.masked)))
    block += _window(share) * any(share.windowed)
    if share.recomputation == "selective":
        return block - _block_kept(share)
    return block - (_stream(share) if share.stream == share.wide else 0)


def _put_off(share: Share) -> int:
    """What stays of one backward pass until its weights' gradients are computed: what they are
    products of, and the loss's, which come with it."""
    widths = share.heads_width + 2 * share.groups_width + 2 * share.ffn + 2 * share.hidden
    gain = share.own_tokens * share.hidden * share.wide
    size = share.layers[-1] * (_again(share) + share.tokens * widths * share.compute + 2 * gain)
    if share.has_head:
        size += share.head * share.wide + share.tokens * share.hidden * share.compute + gain
    # What the stage was given backward, and what it gave.
    return size + 2 * _stream(share)


def _block_backward(share: Share) -> int:
    tokens = share.tokens * (share.hidden + share.ffn) + share.own_tokens * share.hidden
    return _again(share) + _stream(share) + (tokens + share.hidden * share.ffn) * share.compute


def _loss(share: Share) -> int:
    """The last norm and the loss, forward."""
    c, w = share.compute, share.wide
    vocabulary = share.head // share.hidden
    narrow = c if c != w else 0
    # A chunk's logits are there until the next one's are; then comes its share of the gradient,
    # unless it is as wide as the sum.
    following = min(share.loss_rows, share.tokens - share.loss_rows)
    logits = vocabulary * share.loss_rows * (w + narrow)
    logits += max(vocabulary * following * (w + narrow), share.head * narrow)
    size = share.head * (w + (c if share.casts else 0)) + logits
    return size + 2 * share.tokens * share.hidden * c + _norm(share)


def _loss_backward(share: Share) -> int:
    return share.head * share.wide * 2 + 2 * share.tokens * share.hidden * share.compute

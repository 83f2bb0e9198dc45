"""What a run reads, by its content and not by its paths, so that a later start knows it again."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from teleflm.data.loader import quotas
from teleflm.data.mixture import Domain
from teleflm.data.reading import masks_documents


@dataclass(frozen=True)
class Source:
    """What a run reads of a domain.

    Attributes:
        share: sequences of it in every 65,536 of the run; 0 where it is only evaluated.
        tokens: of its training part.
        digest: of that part, see `IndexedTokens.digest`; of conversations also of which tokens
            count, and where documents do not see each other also of where each begins.
        held_out: the digest of its held-out part, None where it has none.
    """

    share: int
    tokens: int
    digest: str
    held_out: str | None


def identify(domains: Sequence[Domain], document_mask: bool = False) -> dict[str, Source]:
    """The sources of a mixture by the names of their domains.

    A store that was moved, and one domain's Megatron pair read out of it, are the same source.
    Raises DataError for a damaged file.
    """
    masks = masks_documents(domains, document_mask)
    ordered = sorted(domains, key=lambda domain: domain.name)
    shares = quotas([domain.weight for domain in ordered])
    return {
        domain.name: Source(
            share,
            domain.train.tokens.size,
            _digest(domain, masks),
            domain.held_out.digest() if domain.held_out else None,
        )
        for domain, share in zip(ordered, shares, strict=True)
    }


def _digest(domain: Domain, masks: bool) -> str:
    tokens = domain.train.digest()
    if not masks:
        return tokens
    counted = domain.counted.digest() if domain.counted is not None else ""
    lengths = domain.train.lengths.astype("<i8").tobytes()
    return hashlib.sha256(f"{tokens} {counted} ".encode() + lengths).hexdigest()

"""What a run reads of a domain: its training text and its held-out text, as windows."""

from collections.abc import Iterable

from teleflm.data.mixture import Domain
from teleflm.data.packed import Packed
from teleflm.data.windows import EndToEnd, Windows
from teleflm.errors import DataError


def masks_documents(domains: Iterable[Domain], asked: bool) -> bool:
    """Whether documents do not see each other: as is asked, and always where some of them are
    conversations, whose rows are read beside those of text."""
    return asked or any(domain.counted is not None for domain in domains)


def training_windows(domain: Domain, sequence_length: int, document_mask: bool) -> Windows:
    """Those of one epoch. Raises DataError where no conversation fits into one."""
    if domain.counted is not None:
        packed = Packed(domain.train, domain.counted, sequence_length)
        if not packed.count:
            raise DataError(
                f"{domain.train.path}: none of its {len(domain.train):,} conversations has a reply "
                f"that ends within data.sequence_length {sequence_length}; lengthen it"
            )
        return packed
    return EndToEnd(domain.train, sequence_length, document_mask)


def held_out_windows(domain: Domain, sequence_length: int, document_mask: bool) -> Windows | None:
    """The held-out part once through, its tail too; None where there is none."""
    if domain.held_out is None:
        return None
    if domain.held_out_counted is not None:
        return Packed(domain.held_out, domain.held_out_counted, sequence_length)
    return EndToEnd(domain.held_out, sequence_length, document_mask, with_tail=True)

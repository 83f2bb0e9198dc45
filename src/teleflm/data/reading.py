"""What a run reads of a domain: its training text and its held-out text, as windows."""

from collections.abc import Iterable

from teleflm.data.mixture import Domain
from teleflm.data.packed import Packed
from teleflm.data.windows import EndToEnd, Windows
from teleflm.errors import DataError


def masks_documents(domains: Iterable[Domain], asked: bool) -> bool:
    """Whether documents do not see each other: as is asked, and always where conversations are
    trained on, whose rows are read beside those of text."""
    return asked or any(domain.is_tuned_on for domain in domains)


def training_windows(domain: Domain, sequence_length: int, document_mask: bool) -> Windows:
    """Those of one epoch. Raises DataError where a domain that is trained on has none."""
    train, windows = domain.train, _windows(domain, sequence_length, document_mask)
    if domain.weight and not windows.count:
        if domain.is_chat:
            raise DataError(
                f"{train.path}: none of its {len(train):,} conversations has a reply that ends "
                f"within data.sequence_length {sequence_length}; lengthen it"
            )
        raise DataError(
            f"{train.path}: {train.tokens.size} tokens are less than one window of "
            f"data.sequence_length + 1 = {sequence_length + 1}; add text, shorten the sequences, "
            "or list the other domains alone under data.path"
        )
    return windows


def _windows(domain: Domain, sequence_length: int, document_mask: bool) -> Windows:
    if domain.counted is not None:
        return Packed(domain.train, domain.counted, sequence_length)
    return EndToEnd(domain.train, sequence_length, document_mask)


def held_out_windows(
    domain: Domain, sequence_length: int, document_mask: bool, tokens: int
) -> tuple[Windows, int] | None:
    """The held-out part once through, its tail too, and how many of its first windows have at most
    so many tokens, one at least; None where there is none.

    Of conversations it is the first ones that have so many, and their windows all count.
    """
    if domain.held_out is None:
        return None
    if domain.held_out_counted is not None:
        packed = Packed(domain.held_out, domain.held_out_counted, sequence_length, tokens)
        return packed, packed.count
    laid = EndToEnd(domain.held_out, sequence_length, document_mask, with_tail=True)
    return laid, min(laid.count, max(1, tokens // sequence_length))

"""What a run reads of a domain: its training text and its held-out text, as windows."""

from teleflm.data.mixture import Domain
from teleflm.data.windows import EndToEnd, Windows


def training_windows(domain: Domain, sequence_length: int, document_mask: bool) -> Windows:
    """Those of one epoch."""
    return EndToEnd(domain.train, sequence_length, document_mask)


def held_out_windows(domain: Domain, sequence_length: int, document_mask: bool) -> Windows | None:
    """The held-out part once through, its tail too; None where there is none."""
    if domain.held_out is None:
        return None
    return EndToEnd(domain.held_out, sequence_length, document_mask, with_tail=True)

"""Long documents in pieces of bounded size."""

from collections.abc import Iterator

PIECE_CHARACTERS = 16_384


def cut_pieces(text: str, limit: int = PIECE_CHARACTERS) -> Iterator[str]:
    """`text` in pieces of at most `limit` characters, cut after a line end where there is one.

    Else it is cut before a space, else anywhere. The pieces joined are `text` again.
    """
    start = 0
    while len(text) - start > limit:
        end = start + limit
        # A cut before a space keeps the space with its word, as the tokenizer does.
        cut = text.rfind("\n", start, end) + 1 or text.rfind(" ", start + 1, end)
        if cut <= start:
            cut = end
        yield text[start:cut]
        start = cut
    yield text[start:]

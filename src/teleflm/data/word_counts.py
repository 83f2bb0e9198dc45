"""How often each word of a corpus occurs, in bounded memory."""

import zlib
from collections.abc import Iterable, Iterator

# Learning 80,000 tokens takes about 110 bytes of memory for each byte of distinct words.
MOST_BYTES = 32_000_000
# What a word takes beside its letters, in letters.
_OVERHEAD = 4
_HASHES = 1 << 32


class WordCounts:
    """Counts of words. Once distinct ones are too many, those that are rare are a sample.

    Text without spaces hardly has a word twice, so its distinct words grow with the text, and all
    of them matter. A word that came n times stays by the chance n / `least`, and then counts as if
    it had come `least` times: what learning sees of the text is as much as there is of it. (This
    is threshold sampling, Duffield, Lund and Thorup 2005.) The chance is a hash of the word, so
    that the same text gives the same counts. While distinct words are few enough, `least` is 1, and
    the counts are exact.

    Attributes:
        least: as how many every word counts at least.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """With room for distinct words of `most_bytes` letters in all, a few more for each."""
        self.least = 1
        self._counts: dict[str, int] = {}
        self._bytes, self._most_bytes = 0, most_bytes

    def add(self, words: Iterable[str]) -> None:
        """Count `words`, each of one-byte letters."""
        counts = self._counts
        for word in words:
            if word in counts:
                counts[word] += 1
            else:
                counts[word] = 1
                self._bytes += len(word) + _OVERHEAD
        if self._bytes > self._most_bytes:
            self._thin()

    def take(self) -> Iterator[tuple[str, int]]:
        """Every word that stayed, and as how many it counts. They are forgotten on the way."""
        # Those that came since the last time have stayed unasked.
        self._drop()
        while self._counts:
            word, count = self._counts.popitem()
            yield word, max(count, self.least)

    def _thin(self) -> None:
        self._drop()
        while self._bytes > self._most_bytes * 3 // 4:
            self.least *= 2
            self._drop()

    def _drop(self) -> None:
        least = self.least
        self._counts = {
            word: count
            for word, count in self._counts.items()
            if count >= least or count * _HASHES > least * zlib.crc32(word.encode())
        }
        self._bytes = sum(map(len, self._counts)) + _OVERHEAD * len(self._counts)

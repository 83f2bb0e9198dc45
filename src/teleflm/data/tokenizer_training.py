"""A byte-level BPE tokenizer, trained on a corpus."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from teleflm.data.find import find_corpus
from teleflm.data.pre_tokenizers import DEFAULT, pre_tokenizer
from teleflm.data.sampling import Sample, sampled_texts
from teleflm.data.sources import Reading
from teleflm.data.tele_flm_chat import CHAT_TOKENS, SPARE_TOKENS
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_files import DEFINITION, SETTINGS
from teleflm.data.unpack import Progress
from teleflm.data.word_counts import MOST_BYTES, WordCounts
from teleflm.errors import DataError
from teleflm.files import write_whole

UNK, BOS, EOS, PAD = SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
# Bytes of a word that merges are learnt from. Each merge goes through every word that has its pair,
# and a text without spaces is a single word, so learning is from parts of it; the tokenizer itself
# does not cut them.
LONGEST_WORD = 64
RESERVED_TOKENS = (*CHAT_TOKENS, *SPARE_TOKENS)
"""The last of the vocabulary, for what a model is tuned to: rows of its embedding that wait."""
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS) + len(RESERVED_TOKENS)
_SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": UNK,
    # A text begins with what a token store has before a document, the `</s>` of the one before: no
    # model has ever seen an `<s>`.
    "bos_token": EOS,
    "eos_token": EOS,
    "pad_token": PAD,
    "add_bos_token": False,
    "add_eos_token": False,
    "clean_up_tokenization_spaces": False,
    # Without it transformers would read a `</s>` inside a text as the end of it.
    "split_special_tokens": True,
}
# Between words on their way to the library: no letter of the byte-level alphabet.
_BETWEEN = "\n"
_LETTERS_AT_ONCE = 1 << 16


def train_tokenizer(
    paths: Iterable[Path],
    vocab_size: int,
    out: Path,
    *,
    cut: str = DEFAULT,
    sample: Sample | None = None,
    reading: Reading | None = None,
    force: bool = False,
    progress: Progress | None = None,
    most_bytes: int = MOST_BYTES,
) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the documents under `paths` and save it in `out`.

    The same documents give the same file. All 256 bytes are tokens, so every text has an exact
    encoding and `<unk>` is never needed. Where the corpus has too few repeated pairs for
    `vocab_size`, the tokenizer is smaller: its own `vocab_size` tells. Its last tokens are the
    marks of Tele-FLM's chat template and spare ones for those of others.

    Args:
        cut: the name of the pre-tokenizer, one of `PRE_TOKENIZERS`.
        sample: how much of the corpus is learnt from; all of it without one.
        progress: takes the bytes read; those of the corpus twice where there is a `sample`.
        most_bytes: of distinct words; beyond them rare words are a sample, see `WordCounts`.

    Raises DataError for a vocabulary below 324, a bad corpus (see `iterate_documents`), weights
    that are not those of its domains, an unknown `cut`, and a tokenizer that stands in `out`
    already unless `force`.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise DataError(
            f"a vocabulary of {vocab_size} is too small: the 256 bytes and "
            f"{len(SPECIAL_TOKENS) + len(RESERVED_TOKENS)} special tokens need "
            f"{SMALLEST_VOCABULARY}"
        )
    words = pre_tokenizer(cut)
    if (out / DEFINITION).exists() and not force:
        raise DataError(f"{out} has a tokenizer already; choose another folder or use --force")
    counts = WordCounts(most_bytes)
    for text in sampled_texts(find_corpus(paths), reading, sample, progress):
        counts.add(_parts(words, text))
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Split(_BETWEEN, "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(RESERVED_TOKENS),
        # A word that stands for several is seen that often at once.
        min_frequency=2 * counts.least,
        special_tokens=list(SPECIAL_TOKENS),
        # Sorted, because the library hands out the alphabet in a random order.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(_repeated(counts), trainer)
    # Behind the learnt ones, which are the same without them.
    library.add_special_tokens(list(RESERVED_TOKENS))
    library.pre_tokenizer, library.decoder = words, decoders.ByteLevel()
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / DEFINITION, library.to_str(pretty=True))
    write_whole(out / SETTINGS, json.dumps({**_SETTINGS, "pre_tokenizer": cut}, indent=2) + "\n")
    return Tokenizer.load(out)


def _parts(words: pre_tokenizers.PreTokenizer, text: str) -> Iterator[str]:
    for word, _ in words.pre_tokenize_str(text):
        if len(word) <= LONGEST_WORD:
            yield word
        else:
            yield from (word[i : i + LONGEST_WORD] for i in range(0, len(word), LONGEST_WORD))


def _repeated(counts: WordCounts) -> Iterator[str]:
    """Texts that have each word as often as it counts: the library counts for itself."""
    for word, count in counts.take():
        once = word + _BETWEEN
        most = max(_LETTERS_AT_ONCE // len(once), 1)
        for start in range(0, count, most):
            yield once * min(most, count - start)

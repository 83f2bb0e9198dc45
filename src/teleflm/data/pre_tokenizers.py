"""How a byte-level tokenizer cuts a text into words before it merges bytes, by the names that
engines know.

llama.cpp keeps no cut in a model file, but a name (`tokenizer.ggml.pre`), and has the cut of each
name in its own code. So what is trained here cuts by one of these, and other engines, which read
tokenizer.json, cut the same. The patterns are those of the models that gave the names.
"""

import functools
import itertools
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from teleflm.errors import DataError

# One token a digit: a number is then written in one way only, place by place, and not in whichever
# chunks were frequent in the corpus, which is what makes sums learnable.
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


def _smollm() -> list[Any]:
    return [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]


def _split(*patterns: str) -> list[Any]:
    cuts = [pre_tokenizers.Split(tokenizers.Regex(p), "isolated") for p in patterns]
    return [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


_STEPS: dict[str, Callable[[], list[Any]]] = {
    # Fewest tokens of those with one token a digit, in every domain measured (docs/log.md).
    "qwen2": lambda: _split(_QWEN2),
    "smollm": _smollm,
    "deepseek-v3": lambda: _split(*_DEEPSEEK_V3),
}
PRE_TOKENIZERS = tuple(_STEPS)
DEFAULT = PRE_TOKENIZERS[0]


def pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    """The library's pre-tokenizer of that name. Raises DataError for a name that is not known."""
    if name not in _STEPS:
        raise DataError(
            f"--pre-tokenizer {name}: not known; choose one of {', '.join(PRE_TOKENIZERS)}"
        )
    return pre_tokenizers.Sequence(_STEPS[name]())


def name_of(definition: Mapping[str, Any]) -> str | None:
    """The name of the cut that a tokenizer.json, read as JSON, asks for; None for another cut.

    It is read off the cut itself, so that it holds for tokenizers of other programs too, and for
    those without a name beside them.
    """
    asked = _essence(definition.get("pre_tokenizer"))
    for name in PRE_TOKENIZERS:
        library = tokenizers.Tokenizer(tokenizers.models.BPE())
        library.pre_tokenizer = pre_tokenizer(name)
        if _essence(json.loads(library.to_str())["pre_tokenizer"]) == asked:
            return name
    return None


def _essence(content: Any) -> Any:
    """A pre-tokenizer without what changes no token."""
    if isinstance(content, Mapping):
        return {key: _essence(value) for key, value in content.items() if key != "trim_offsets"}
    return [_essence(value) for value in content] if isinstance(content, list) else content


_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Of models from elsewhere; and whether a word that is a token is taken without merges.
_ENGINES: dict[str, tuple[Callable[[], list[Any]], bool]] = {
    **{name: (steps, False) for name, steps in _STEPS.items()},
    "gpt-2": (lambda: [pre_tokenizers.ByteLevel(add_prefix_space=False)], False),
    "llama-bpe": (lambda: _split(_LLAMA3), True),
}
ENGINE_NAMES = tuple(_ENGINES)
"""The cuts that llama.cpp is known to make as the library does, by its names."""


def engine_name(cut: pre_tokenizers.PreTokenizer | None, ignore_merges: bool) -> str | None:
    """llama.cpp's name of a cut, found by what it does to texts; None where none does the same.

    The texts are every run of three of the kinds of characters that the cuts tell apart, and longer
    ones of them by chance, the same each time.
    """
    if cut is None:
        return None
    expected = [cut.pre_tokenize_str(text) for text in _probes()]
    for name, (steps, ignores) in _ENGINES.items():
        known = pre_tokenizers.Sequence(steps())
        if ignores == ignore_merges and all(
            known.pre_tokenize_str(text) == pieces
            for text, pieces in zip(_probes(), expected, strict=True)
        ):
            return name
    return None


# A letter, a capital, one beyond ASCII, a mark, Han, kana, digits, other numbers, blanks, line
# ends, what stands in English contractions, and other signs.
_KINDS = [*"aSé\u0301中か1½_'!￥ \n\r\t\u00a0"]


@functools.cache
def _probes() -> list[str]:
    chance = random.Random(0)
    kinds = [*_KINDS, "'ll", "'S", "12345", "  "]
    long = ("".join(chance.choices(kinds, k=16)) for _ in range(2000))
    return ["".join(run) for run in itertools.product(_KINDS, repeat=3)] + list(long)

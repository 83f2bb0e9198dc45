"""Text reduced to its form: what makes a language one, without what is spoken of."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

# Words that hold sentences together. Others are told by their capitals and last letters.
_FUNCTION_WORDS_TEXT = """
a about above after again against all also am an and any are as at away back be because been
before being below between both but by can come could did do does done down each either else
even every few first for from further get go got had has have having he her here hers him
his how however i if in into is it its itself just last least less let like make many may me
might more most much must my neither never no nor not nothing now of off often on once one
only or other others our out over own perhaps rather said same say see shall she should
since so some still such take than that the their them then there therefore these they thing
this those though through thus time to together too toward two under until unto up upon us
use used very was we well were what when where whether which while who whom whose why will
with within without would yet you your
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORDS_TEXT.split())
_FUNCTION_CHARACTERS = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年"
    "过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心"
    "她本前开但因只从想实日者意无此全很把由两却与及已向或被使给又各再最并将几每等才更即且乃若则"
    "何未尽皆亦曰岂矣焉哉吾汝谁孰莫非岁山水风月春秋花云不為來時會對說過開後沒還這們個國與無從"
)
_TOKEN = re.compile(r"[A-Za-z]+|[0-9]+|\n|[^\sA-Za-z0-9]")
_SPACES = re.compile(r"\s+")
_SUFFIX = 2  # letters, of words of more than three
_MOST_DIGITS = 5


def form_features(text: str) -> Iterator[str]:
    """Runs of one to three forms, and of three characters as they stand."""
    tokens = [_form(token) for token in _TOKEN.findall(text)]
    yield from tokens
    for one, two in pairwise(tokens):
        yield f"{one}\x1f{two}"
    for one, two, three in zip(tokens, tokens[1:], tokens[2:], strict=False):
        yield f"{one}\x1f{two}\x1f{three}"
    plain = _SPACES.sub(" ", text.lower())
    # Marked, as a run of characters may read like a form.
    yield from ("\x1e" + plain[at : at + 3] for at in range(len(plain) - 2))


@lru_cache(maxsize=1 << 16)
def _form(token: str) -> str:
    first = token[0]
    if not first.isascii():
        is_word = first in _FUNCTION_CHARACTERS or not first.isalpha()
        return first if is_word else _rarity(first)
    if first.isdigit():
        return "0" * min(len(token), _MOST_DIGITS)
    low = token.lower()
    if not first.isalpha() or low in _FUNCTION_WORDS:
        return low
    capitals = "X" if token.isupper() and len(token) > 1 else "Xx" if first.isupper() else "x"
    return capitals + (low[-_SUFFIX:] if len(low) > 3 else "")


def _rarity(character: str) -> str:
    """How common a Chinese character is: the first levels of GB 2312 and Big5 hold what is in daily
    use, simplified and traditional."""
    if "gb2312" in _common_in(character):
        return "汉"
    return "漢" if "big5" in _common_in(character) else "龘"


def _common_in(character: str) -> list[str]:
    levels = {"gb2312": (0xB0, 0xD7), "big5": (0xA4, 0xC6)}
    encoded = {name: character.encode(name, errors="ignore") for name in levels}
    return [
        name
        for name, (low, high) in levels.items()
        if encoded[name] and low <= encoded[name][0] <= high
    ]

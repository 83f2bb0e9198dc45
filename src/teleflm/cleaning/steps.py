"""The steps that a recipe may name."""

from teleflm.cleaning.decontaminate import Decontaminate
from teleflm.cleaning.extract import Extract
from teleflm.cleaning.heuristics import Heuristics
from teleflm.cleaning.language import Language
from teleflm.cleaning.mask import Mask
from teleflm.cleaning.minhash import MinHash
from teleflm.cleaning.normalise import Normalise
from teleflm.cleaning.paragraphs import Paragraphs
from teleflm.cleaning.quality import Quality
from teleflm.cleaning.repetition import Repetition
from teleflm.cleaning.step import CorpusStep, Step

_KINDS: tuple[type[Step] | type[CorpusStep], ...] = (
    Extract,
    Normalise,
    Language,
    Heuristics,
    Repetition,
    Quality,
    MinHash,
    Paragraphs,
    Decontaminate,
    Mask,
)
KINDS = {kind.name: kind for kind in _KINDS}
"""By name, in the order of the shipped recipes, which is the published pipeline's but for
`paragraphs`.

There it comes before `minhash`. But a copy with a word changed here and there would lose the
paragraphs that were not hit, and what is left of it is like nothing else: it would stay.
"""

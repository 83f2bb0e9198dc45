"""What the steps of cleaning that see one document drop of text that is clean and of text that is
not, and what they cost beside datatrove's Gopher filters.

    python benchmarks/filters.py zh=poetry.jsonl.zst zh=handbook-zh.jsonl.zst en=bible.jsonl.zst

Each argument is LANGUAGE=FILE of clean text. With --score each source in turn is kept from training
a quality score, and is told from bad text in its own words. Times are processor time.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datatrove.data import Document

sys.path.insert(0, str(Path(__file__).parents[1]))

from teleflm.cleaning.heuristics import Heuristics, HeuristicsSettings
from teleflm.cleaning.language import Language, LanguageSettings
from teleflm.cleaning.mask import Mask, MaskSettings
from teleflm.cleaning.normalise import Normalise, NormaliseSettings
from teleflm.cleaning.repetition import Repetition, RepetitionSettings
from teleflm.cleaning.score import Scorer, train
from teleflm.cleaning.step import Step
from teleflm.data.find import find_corpus
from teleflm.data.sources import iterate_documents
from tests.cleaning.bad_text import bad_texts, clean, planted

Sources = dict[str, tuple[str, list[str]]]


def steps() -> list[Step]:
    """Those that drop or change text without a model of the user's."""
    return [
        Normalise(NormaliseSettings()),
        Language(LanguageSettings()),
        Heuristics(HeuristicsSettings()),
        Repetition(RepetitionSettings()),
        Mask(MaskSettings()),
    ]


def gopher(language: str) -> list[tuple[str, Callable[[Document], Any]]]:
    """datatrove's filters, with Chinese cut into words for Chinese."""
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter

    code = {"zh": "cmn"}.get(language, "eng")
    both = GopherQualityFilter(language=code), GopherRepetitionFilter(language=code)
    return [(f"datatrove's {type(each).__name__}", each.filter) for each in both]


def judge(name: str, judged: Callable[[Document], Any], language: str, texts: list[str]) -> None:
    """Print what is dropped of `texts`, why, and the processor time for 1,000 bytes."""
    documents = [
        Document(text, str(i), metadata={"language": language}) for i, text in enumerate(texts)
    ]
    size = sum(len(text.encode()) for text in texts)
    start = time.process_time()
    verdicts = [judged(document) for document in documents]
    spent = time.process_time() - start
    if "datatrove" in name:  # True, or (False, why)
        verdicts = [None if kept is True else kept[1] for kept in verdicts]
    reasons = Counter(verdict for verdict in verdicts if verdict)
    dropped = sum(reasons.values())
    print(
        f"  {name:36}{dropped:6} of {len(texts):6} dropped, {100 * dropped / len(texts):6.2f} %, "
        f"{spent / size * 1e9:6.0f} µs/kB  {dict(reasons.most_common(4))}"
    )


def scores(sources: Sources) -> None:
    """Print how well a score tells the source that it did not see from bad text."""
    for held, (language, texts) in sources.items():
        others = {name: each for name, each in sources.items() if name != held}
        good = {name: each for name, (_, each) in others.items()}
        bad = {
            f"{name}, {kind}": made
            for name, (spoken, each) in others.items()
            for kind, made in bad_texts(5, 300, each, planted(spoken, "seen")).items()
        }
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "score.safetensors"
            figures = train(good, bad, out, 0.1)
            scorer = Scorer.load(out)
        measured = [scorer.score(text) for text in texts[:300]]
        made = bad_texts(6, 100, texts, planted(language, "unseen"))
        by_kind = {kind: [scorer.score(text) for text in each] for kind, each in made.items()}
        every = [one for each in by_kind.values() for one in each]
        kinds = ", ".join(f"{kind} {area(measured, each):.3f}" for kind, each in by_kind.items())
        print(f"{held}: AUC {area(measured, every):.4f} ({kinds}); held out {figures.auc:.4f}")


def area(high: list[float], low: list[float]) -> float:
    """Under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score([1] * len(high) + [0] * len(low), high + low))


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("sources", nargs="+", metavar="LANGUAGE=FILE")
    parser.add_argument("--most", type=int, default=10_000, help="documents of a source")
    parser.add_argument("--score", action="store_true", help="the quality score instead")
    arguments = parser.parse_args()
    sources: Sources = {}
    for source in arguments.sources:
        language, _, path = source.partition("=")
        texts = [document.text for document in iterate_documents(find_corpus([Path(path)]))]
        chosen = random.Random(0).sample(texts, min(arguments.most, len(texts)))
        sources[Path(path).name] = language, chosen
    if arguments.score:
        scores(sources)
        return
    rows = {
        **{
            f"{name} ({language})": (language, texts) for name, (language, texts) in sources.items()
        },
        **{
            f"planted, {half} ({language})": (language, planted(language, half))
            for language in ("zh", "en")
            for half in ("seen", "unseen")
        },
        **{
            f"prose about spam ({language})": (language, clean(language))
            for language in ("zh", "en")
        },
    }
    for title, (language, texts) in rows.items():
        print(title)
        for step in steps():
            judge(step.name, step, language, texts)
        for name, judged in gopher(language) if language != "code" else ():
            try:
                judge(name, judged, language, texts[:500])
            except ImportError as error:  # it asks for a library of each language
                print(f"  {name}: {error}")


if __name__ == "__main__":
    main()

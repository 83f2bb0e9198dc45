"""A score tells bad text from good text of a source that it never saw; it is the same each time."""

import json
import random
import sys
from pathlib import Path
from pydoc_data.topics import topics as pydoc_topics

import numpy as np
import pytest
from datatrove.data import Document
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from teleflm.cleaning import score
from teleflm.cleaning.quality import Quality, QualitySettings
from teleflm.cleaning.score import Example, Figures, Scorer, train
from teleflm.errors import DataError, MissingExtraError
from tests.cleaning.bad_text import bad_texts, clean, planted
from tests.cleaning.prose import CODE
from tests.conftest import Command


def parts(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text) - size // 2, size)]


def drawn(texts: list[str]) -> list[str]:
    """Many, as other releases of Python have other ones."""
    return random.Random(0).sample(texts, min(600, len(texts)))


def topics() -> list[str]:
    """Python's own help."""
    found = [part for text in pydoc_topics.values() for part in parts(text, 800)]
    return drawn(found)


def docstrings() -> list[str]:
    """What modules of the standard library say of themselves."""
    found = []
    for path in sorted(Path(json.__file__).parents[1].glob("*.py")):
        pieces = path.read_text(encoding="utf-8", errors="replace").split('"""')
        found += [piece for piece in pieces[1::2] if len(piece) > 200 and "." in piece]
    return drawn(found)


def manual() -> list[str]:
    """Prose of this project's documentation."""
    paths = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    paragraphs = [p for path in paths for p in path.read_text(encoding="utf-8").split("\n\n")]
    return [p for p in paragraphs if len(p) > 300 and not p.lstrip().startswith(("|", "`", "-"))]


GOOD = {
    "topics": topics(),
    "docstrings": docstrings(),
    "chinese": ["".join(clean("zh")[i : i + 3]) for i in range(14)],
}
UNSEEN = manual()[:80]
SPAM = planted("en", "seen")


def bad(seed: int, number: int, good: list[str], spam: list[str]) -> list[str]:
    return [text for texts in bad_texts(seed, number, good, spam).values() for text in texts]


BAD = {
    "english": bad(1, 400, GOOD["topics"] + GOOD["docstrings"], SPAM),
    "chinese": planted("zh", "seen"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("score") / "score.safetensors"
    train(GOOD, BAD, path, 0.2)
    return path


def area(high: list[float], low: list[float]) -> float:
    pairs = [(one > other) + (one == other) / 2 for one in high for other in low]
    return sum(pairs) / len(pairs)


def test_it_tells_bad_text_from_a_source_it_did_not_see(model: Path) -> None:
    scorer = Scorer.load(model)
    good = [scorer.score(text) for text in UNSEEN]
    worse = bad_texts(2, 40, UNSEEN, planted("en", "unseen"))
    scores = {kind: [scorer.score(text) for text in texts] for kind, texts in worse.items()}
    assert area(good, [one for each in scores.values() for one in each]) >= 0.95
    assert area(good, scores["spam"]) >= 0.95
    assert area([scorer.score(text) for text in clean("en")], scores["spam"]) >= 0.95


def test_trained_twice_and_in_any_order_it_is_the_same_file(model: Path, tmp_path: Path) -> None:
    rng = random.Random(3)
    shuffled = [
        {name: rng.sample(texts, len(texts)) + texts[:3] for name, texts in side.items()}
        for side in (GOOD, BAD)
    ]
    train(shuffled[0], shuffled[1], tmp_path / "again.safetensors", 0.2)
    assert (tmp_path / "again.safetensors").read_bytes() == model.read_bytes()


def test_length_says_nothing(tmp_path: Path) -> None:
    # Good and bad are the same words: the good ones are ten times as long.
    rng = random.Random(4)
    words = " ".join(GOOD["topics"]).split()
    areas = []
    for _ in range(4):  # one draw alone is some 0.05 off by chance
        long = [" ".join(rng.choices(words, k=200)) for _ in range(300)]
        short = [" ".join(rng.choices(words, k=20)) for _ in range(300)]
        areas.append(train({"long": long}, {"short": short}, tmp_path / "s", 0.3).auc)
    assert abs(np.mean(areas) - 0.5) < 0.06


@pytest.mark.parametrize(
    ("start", "end", "left"),
    [(0, 9, "a long"), (4, 14, "winding"), (2, 14, "long winding"), (7, 20, "winding")],
)
def test_cut_texts_begin_and_end_with_whole_words(start: int, end: int, left: str) -> None:
    assert score._at_words("a long winding " + "x" * 40, start, end).strip() == left


def test_what_is_one_long_word_is_cut_within_it() -> None:
    assert score._at_words("x" * 99, 10, 60) == "x" * 50


def test_lengths_of_both_sides_are_alike() -> None:
    rng = random.Random(5)
    examples = [
        Example(
            "x " * rng.randint(*((10, 45) if good else (25, 450))), good, "s", rng.getrandbits(256)
        )
        for good in (True, False)
        for _ in range(2000)
    ]
    cut = score._cut_alike(examples)
    means = [np.mean([len(e.text) for e in cut if e.good == good]) for good in (True, False)]
    assert means[0] == pytest.approx(means[1], rel=0.03)


def test_sources_and_scripts_have_the_same_say() -> None:
    examples = [Example("words", True, "a", 1)] * 90 + [Example("words", True, "b", 2)] * 10
    examples += [Example("words", False, "c", 3)] * 7
    weights = score._weights(examples)
    assert weights.sum() == pytest.approx(len(examples))
    by_source = [weights[:90].sum(), weights[90:100].sum(), weights[100:].sum()]
    assert by_source == pytest.approx([len(examples) / 4, len(examples) / 4, len(examples) / 2])


def test_a_script_of_one_side_only_is_left_out(tmp_path: Path) -> None:
    figures = train(GOOD, {"english": BAD["english"]}, tmp_path / "s", 0.2)
    assert figures.left_out_scripts == ["chinese"]
    assert set(figures.auc_by_script) == {"other"}
    with pytest.raises(DataError, match="both sides have"):
        train({"g": clean("zh")}, {"b": BAD["english"]}, tmp_path / "s", 0.2)


def test_features_are_scikit_learns() -> None:
    from sklearn.feature_extraction.text import HashingVectorizer

    theirs = HashingVectorizer(
        analyzer=score.form_features, n_features=score._FEATURES, alternate_sign=False, norm="l2"
    )
    texts = [*clean("zh")[:3], *clean("en")[:3], CODE]
    assert abs(theirs.transform(texts) - score._Hashed().matrix(texts)).max() < 1e-12


def damaged(model: Path, path: Path, **changes: object) -> Path:
    header = json.loads(_metadata(model)) | changes
    save_file(load_file(model), path, {"teleflm_score": json.dumps(header)})
    return path


def _metadata(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return str(file.metadata()["teleflm_score"])


def test_files_that_are_no_score(model: Path, tmp_path: Path) -> None:
    way_out = "teleflm data score train"
    with pytest.raises(DataError, match=rf"version.*{way_out}"):
        Scorer.load(damaged(model, tmp_path / "other", format=99))
    with pytest.raises(DataError, match=rf"weights are not.*{way_out}"):
        Scorer.load(damaged(model, tmp_path / "sum", sha256="0"))
    whole = model.read_bytes()
    (tmp_path / "cut").write_bytes(whole[:1000])
    (tmp_path / "flipped").write_bytes(whole[:-5] + bytes([whole[-5] ^ 255]) + whole[-4:])
    (tmp_path / "text").write_text("no model")
    save_file({"x": np.zeros(3)}, tmp_path / "tensors")
    for name in ("cut", "flipped", "text", "tensors", "missing", ""):
        with pytest.raises(DataError, match=rf"{name}.*{way_out}"):
            Scorer.load(tmp_path / name)


def judged(text: str, **settings: object) -> tuple[str | None, dict[str, object]]:
    document = Document(text=text, id="1", metadata={"language": "en", "weight": 2.0})
    return Quality(QualitySettings.model_validate(settings))(document), document.metadata


def test_the_step(model: Path) -> None:
    bad_one = planted("en", "unseen")[5]
    reason, metadata = judged(bad_one, model=str(model), threshold=0.5)
    assert reason == "low score" and metadata["score"] < 0.5  # type: ignore[operator]
    reason, metadata = judged(GOOD["topics"][0], model=str(model), threshold=0.5)
    assert reason is None and metadata["score"] > 0.5 and metadata["weight"] == 2.0  # type: ignore[operator]
    reason, metadata = judged(bad_one, model=str(model), soft=0.8)
    assert reason is None
    assert metadata["weight"] == pytest.approx(2 * metadata["score"] / 0.8, abs=1e-3)  # type: ignore[operator]
    with pytest.raises(ValidationError, match="model"):
        QualitySettings.model_validate({})


def test_code_is_not_scored(model: Path) -> None:
    step = Quality(QualitySettings(model=str(model), threshold=1.0))
    document = Document(text=CODE, id="1", metadata={"language": "code"})
    assert step(document) is None and "score" not in document.metadata
    assert step.details == {"not scored: code": 1}


def written(path: Path, texts: list[str]) -> Path:
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_command(tmp_path: Path, teleflm: Command) -> None:
    good = [written(tmp_path / f"{name}.jsonl", texts) for name, texts in GOOD.items()]
    worse = [written(tmp_path / f"bad-{name}.jsonl", texts) for name, texts in BAD.items()]
    out = tmp_path / "score.safetensors"
    # Both files after one --against are bad ones.
    ran = teleflm("data", "score", "train", *good, "--against", *worse, "--out", out, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["auc"] > 0.9 and found["out"] == str(out)
    assert set(found["auc_by_script"]) == {"chinese", "other"}
    assert set(found["sources"]) == {str(path) for path in [*good, *worse]}
    assert Figures(**{name: found[name] for name in Figures._fields})

    again = teleflm("data", "score", "train", *good, "--against", worse[0], "--out", out)
    assert again.code == 2 and "--force" in again.err
    both = teleflm("data", "score", "train", good[0], "--against", good[0], "--out", tmp_path / "x")
    assert both.code == 2 and "good and as bad" in both.err
    plain = teleflm(
        "data", "score", "train", *good, "--force", f"--against={worse[0]}", "--out", out
    )
    assert plain.code == 0 and "AUC" in plain.out and "'chinese'" in plain.err


def test_the_library_that_is_missing_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.utils", None)
    with pytest.raises(MissingExtraError, match="scikit-learn"):
        Scorer.load(model)

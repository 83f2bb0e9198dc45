"""Bits per byte of stores and text, by domain and position, against the definition."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from teleflm.config.model import ModelConfig
from teleflm.data.mixture import open_domains
from teleflm.data.sources import Reading
from teleflm.data.store import TokenStore, prepare
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import ConfigError, DataError
from teleflm.evaluation.bpb import evaluate
from teleflm.evaluation.measure import Measured, difference, measure
from teleflm.evaluation.scorer import Scorer, open_scorer
from teleflm.evaluation.text import Piece, open_text
from teleflm.evaluation.windows import Disjoint, Rolling, Windowing
from teleflm.model.init import initial_state
from tests.foreign import foreign
from tests.growing import opened_of
from tests.tiny import MODEL

CPU = torch.device("cpu")
CONTEXT = 300


def scorer_of(vocab_size: int, length: int | None = None) -> Scorer:
    update = {"vocab_size": vocab_size, "max_position_embeddings": CONTEXT}
    model: ModelConfig = MODEL.model_copy(update=update)
    return open_scorer(opened_of(model, initial_state(model, 0)), length, "fp32", CPU)


@pytest.fixture(scope="module")
def scorer(store: TokenStore) -> Scorer:
    return scorer_of(store.vocab_size, 16)


def measured(
    scorer: Scorer,
    path: Path,
    tokenizer: Tokenizer | None = None,
    windowing: Windowing = "disjoint",
    tokens: int | None = None,
    whole: bool = False,
    document_mask: bool = False,
) -> Measured:
    text = open_text(path, tokenizer, whole, Reading())
    read: list[int] = []
    found = measure(scorer, text, windowing, read.append, tokens, document_mask)
    assert sum(read) == text.bytes
    return found


def nats_of(scorer: Scorer, tokens: np.ndarray) -> list[float]:
    """Of each token but the first, read in one go."""
    with torch.no_grad():
        logits = scorer.network(torch.from_numpy(tokens[None, :-1].astype(np.int64)))
    logs = logits[0].double().log_softmax(-1)
    return (-logs[range(len(tokens) - 1), tokens[1:].astype(np.int64)]).tolist()


@pytest.mark.parametrize("document_mask", [False, True])
@pytest.mark.parametrize("tokens", [200, 10**9])
def test_the_held_out_part_has_training_s_own_figures(
    scorer: Scorer, store: TokenStore, tokens: int, document_mask: bool
) -> None:
    found = measured(
        scorer, store.path, store.tokenizer, tokens=tokens, document_mask=document_mask
    )
    expected = evaluate(
        scorer.engine.loss_sum,
        open_domains(store.path),
        vocab_size=store.vocab_size,
        sequence_length=16,
        tokens=tokens,
        document_mask=document_mask,
    )
    assert expected is not None and expected.bpb_mean is not None
    assert found.bpb == pytest.approx(expected.bpb, rel=1e-6)
    assert found.bpb_mean == pytest.approx(expected.bpb_mean, rel=1e-6)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert (found.tokens, found.bytes) == (expected.tokens, expected.bytes)


def test_text_has_the_figures_of_a_store_made_of_it(
    scorer: Scorer, store: TokenStore, corpus: Path
) -> None:
    text = measured(scorer, corpus, store.tokenizer)
    # In a store a part is held out, and the documents on both sides of it meet: nearly the same.
    whole = measured(scorer, store.path, whole=True)
    assert text.bpb.keys() == whole.bpb.keys() == {"english", "chinese", "code"}
    assert text.bpb == pytest.approx(whole.bpb, rel=0.01)
    # Each first token is not predicted.
    sizes = [counts.bytes + counts.held_out_bytes for counts in store.domains.values()]
    assert 0 <= sum(sizes) - text.bytes <= 3 * 12
    assert 0 <= sum(sizes) - whole.bytes <= 3 * 12


@pytest.mark.parametrize("whole", [False, True])
def test_progress_of_a_store_counts_its_text(store: TokenStore, whole: bool) -> None:
    domains = store.domains.values()
    train = sum(counts.bytes for counts in domains) if whole else 0
    text = open_text(store.path, store.tokenizer, whole, Reading())
    assert text.bytes == train + sum(counts.held_out_bytes for counts in domains)


def test_of_what_is_enough_no_more_is_cut(
    scorer: Scorer, store: TokenStore, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, cut = Tokenizer.encode, list[str]()

    def counted(self: Tokenizer, text: str) -> list[int]:
        cut.append(text)
        return encode(self, text)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    found = measured(scorer, corpus, store.tokenizer, tokens=2000)
    assert found.tokens == 3 * 2000
    # Of 240 records and a file those that 2,000 tokens and one window more are in.
    assert 10 < len(cut) < 100


def test_a_byte_is_a_byte_in_every_script(
    scorer: Scorer, store: TokenStore, tmp_path: Path
) -> None:
    file = tmp_path / "chinese.txt"
    file.write_text("那船过了旧港。" * 9, encoding="utf-8")
    found = measured(scorer, file, store.tokenizer, "rolling")
    ids = np.array(store.tokenizer.encode(file.read_text(encoding="utf-8")))
    assert found.bytes == 7 * 9 * 3 and found.tokens == len(ids)
    nats = sum(rolled(scorer, store.tokenizer, ids))
    assert found.bpb["chinese"] == pytest.approx(nats / math.log(2) / (7 * 9 * 3), rel=1e-6)


def rolled(scorer: Scorer, tokenizer: Tokenizer, ids: np.ndarray) -> list[float]:
    """Nats of a document behind its prefix; the last window reads as far back as it can."""
    line = np.array([*tokenizer.encode_prompt(""), *ids])
    nats: list[float] = []
    while len(nats) < len(ids):
        end = min(len(nats) + scorer.length, len(ids))
        window = line[max(0, end - scorer.length) : end + 1]
        nats += nats_of(scorer, window)[len(nats) - end :]
    return nats


def test_rolling_takes_each_document_by_itself_and_leaves_its_end_out(
    scorer: Scorer, store: TokenStore
) -> None:
    found = measured(scorer, store.path, store.tokenizer, "rolling")
    total, count = 0.0, 0
    for domain, counts in store.domains.items():
        part, nats = store.held_out(domain), 0.0
        for index in range(len(part)):
            document = part.document(index).astype(np.int64)
            assert document[-1] == store.tokenizer.eos_id
            nats += sum(rolled(scorer, store.tokenizer, document[:-1]))
            count += len(document) - 1
        assert found.bpb[domain] == pytest.approx(
            nats / math.log(2) / counts.held_out_bytes, rel=1e-6
        )
        total += nats
    assert found.tokens == count and found.loss == pytest.approx(total / count, rel=1e-6)
    assert found.bytes == sum(counts.held_out_bytes for counts in store.domains.values())


@pytest.mark.parametrize("kind", ["pieces", "unigram"])
def test_bytes_are_the_text_s_own_with_any_tokenizer(tmp_path: Path, kind: str) -> None:
    # Pieces begin with a space that no text has; NFKC makes one letter of the ligature's two.
    file = tmp_path / "text.jsonl"
    texts = [f"ﬁne ship {i} 那船\n" * (i % 7 + 1) for i in range(60)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    folder = foreign(tmp_path)[kind]
    made = prepare([file], folder, tmp_path / "store", held_out=0.2)
    scorer = scorer_of(made.vocab_size, 16)
    found = measured(scorer, file, Tokenizer.load(folder), "rolling")
    assert found.bytes == sum(len(text.encode()) for text in texts)
    held_out = measured(scorer, made.path, windowing="rolling")
    assert held_out.bytes == made.domains["text"].held_out_bytes


def test_positions_are_counted_in_the_window(store: TokenStore, tmp_path: Path) -> None:
    scorer = scorer_of(store.vocab_size, CONTEXT)
    file = tmp_path / "x.txt"
    file.write_text("".join(f"Ship {i * 7919 % 1000} sailed.\n" for i in range(60)))
    ids = np.array(store.tokenizer.encode(file.read_text()))
    assert CONTEXT + 150 < len(ids) < 2 * CONTEXT
    found = measured(scorer, file, store.tokenizer, "rolling")
    line = np.array([*store.tokenizer.encode_prompt(""), *ids])
    first = nats_of(scorer, line[: CONTEXT + 1])
    rest = len(ids) - CONTEXT
    last = nats_of(scorer, line[len(ids) - CONTEXT :])
    seen = [(place, nats) for place, nats in enumerate(first)]
    seen += [(CONTEXT - rest + place, nats) for place, nats in enumerate(last[-rest:])]
    assert [(band.first, band.last) for band in found.positions] == [
        (0, 127),
        (128, 255),
        (256, 511),
    ]
    for band in found.positions:
        mine = [nats for place, nats in seen if band.first <= place <= band.last]
        assert band.tokens == len(mine)
        assert band.loss == pytest.approx(sum(mine) / len(mine), rel=1e-5)


def test_the_standard_error_is_that_of_a_ratio_over_windows(
    scorer: Scorer, store: TokenStore
) -> None:
    found = measured(scorer, store.path, store.tokenizer)
    lengths = store.tokenizer.byte_lengths
    assert lengths is not None
    tokens = store.held_out("code").tokens.astype(np.int64)
    starts = range(0, len(tokens) - 1, 16)
    windows = [tokens[start : start + 17] for start in starts]
    nats = np.array([sum(nats_of(scorer, window)) for window in windows])
    sizes = np.array([lengths[window[1:]].sum() for window in windows])
    ratio = nats.sum() / sizes.sum()
    spread = (nats - ratio * sizes).std(ddof=1) * math.sqrt(len(windows)) / sizes.sum()
    assert found.bpb_stderr["code"] == pytest.approx(spread / math.log(2), rel=1e-4)
    once = measured(scorer, store.path, store.tokenizer, tokens=1)
    assert once.bpb_stderr == {"english": None, "chinese": None, "code": None}


def test_a_difference_has_an_error_of_its_own(scorer: Scorer, store: TokenStore) -> None:
    model = scorer.model
    weights = {name: weight * 1.01 for name, weight in initial_state(model, 0).items()}
    near = open_scorer(opened_of(model, weights), 16, "fp32", CPU)
    one, other = (measured(each, store.path, store.tokenizer) for each in (near, scorer))
    for domain, (value, error) in difference(one, other).items():
        a, b = one.windows[domain], other.windows[domain]
        assert value == pytest.approx(one.bpb[domain] - other.bpb[domain], abs=1e-9)
        gaps = a[:, 0] - b[:, 0] - gap_of(a, b) * a[:, 1]
        spread = gaps.std(ddof=1) * math.sqrt(len(a)) / a[:, 1].sum() / math.log(2)
        assert error == pytest.approx(spread, rel=1e-6)
        assert error is not None and error < (one.bpb_stderr[domain] or 0) / 2
    short = measured(scorer_of(store.vocab_size, 8), store.path, store.tokenizer)
    assert difference(one, short) == {}


def gap_of(a: np.ndarray, b: np.ndarray) -> float:
    """Nats a byte between them."""
    return float((a[:, 0] - b[:, 0]).sum() / a[:, 1].sum())


def test_another_context_length_is_another_figure_and_no_more_than_there_is(
    store: TokenStore,
) -> None:
    long, short = (
        measured(scorer_of(store.vocab_size, length), store.path, store.tokenizer)
        for length in (64, 2)
    )
    assert long.tokens == short.tokens and long.loss != short.loss
    assert scorer_of(store.vocab_size).length == CONTEXT
    with pytest.raises(ConfigError, match=r"--sequence-length 301: the context of .* is 300"):
        scorer_of(store.vocab_size, 301)


def test_windows_depend_on_no_cut_of_the_documents() -> None:
    tokens = np.arange(50)
    pieces = [
        Piece("x", part, part.astype(np.float64)) for part in np.split(tokens, [1, 2, 9, 10, 30])
    ]
    for windower in (Disjoint(7), Disjoint(49), Disjoint(60)):
        found = [window for piece in pieces for window in windower.add(piece)]
        found += windower.end()
        assert np.concatenate([window.tokens[1:] for window in found]).tolist() == [*range(1, 50)]
        assert all((window.sizes == window.tokens[1:]).all() for window in found)
    assert list(Rolling(4, 99, end=0).add(Piece("x", np.array([0]), np.zeros(1)))) == []


def test_what_does_not_fit_is_named(scorer: Scorer, store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside the model's vocabulary of 40"):
        measured(scorer_of(40, 16), store.path)
    with pytest.raises(DataError, match="made with another tokenizer than the model's"):
        measured(scorer, store.path, Tokenizer.load(foreign(tmp_path)["pieces"]))
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match="no tokenizer with the model"):
        measured(scorer, tmp_path / "a.txt")
    with pytest.raises(DataError, match="leave out --all"):
        measured(scorer, tmp_path / "a.txt", store.tokenizer, whole=True)

"""Bits per byte against the definition, token by token."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from teleflm.config.run import Precision
from teleflm.data.indexed import IndexedTokens
from teleflm.data.mixture import Mixture, open_domains
from teleflm.data.store import TokenStore, prepare
from teleflm.evaluation.bpb import Evaluation, evaluate
from teleflm.model.init import build_model, initial_state
from teleflm.model.network import TeleFLM
from teleflm.parallel.engine import OneProcess
from tests.foreign import foreign
from tests.tiny import MODEL

LENGTH = 16


@pytest.fixture(scope="module")
def mixture(store: TokenStore) -> Mixture:
    return open_domains(store.path)


@pytest.fixture(scope="module")
def network(store: TokenStore) -> TeleFLM:
    model = MODEL.model_copy(update={"vocab_size": store.vocab_size})
    return build_model(model, initial_state(model, 0), torch.float32)


def evaluated(
    network: TeleFLM,
    mixture: Mixture,
    tokens: int,
    precision: Precision = "fp32",
    document_mask: bool = False,
) -> Evaluation | None:
    engine = OneProcess(network.config, torch.float32, torch.device("cpu"), precision=precision)
    engine.networks[0].load_state_dict(network.state_dict())
    return evaluate(
        engine.loss_sum,
        mixture,
        vocab_size=network.config.vocab_size,
        sequence_length=LENGTH,
        tokens=tokens,
        document_mask=document_mask,
    )


def by_hand(network: TeleFLM, tokens: np.ndarray) -> list[float]:
    """Nats of every token but the first, windows of LENGTH inputs that follow on one another."""
    nats = []
    for start in range(0, len(tokens) - 1, LENGTH):
        window = torch.tensor(tokens[start : start + LENGTH + 1].astype(np.int64))
        with torch.no_grad():
            logs = network(window[None, :-1])[0].double().log_softmax(-1)
        nats += (-logs[range(len(window) - 1), window[1:]]).tolist()
    return nats


def test_every_held_out_byte_is_counted_once(
    network: TeleFLM, mixture: Mixture, store: TokenStore
) -> None:
    found = evaluated(network, mixture, 10**9)
    assert found is not None
    total, count, size = 0.0, 0, 0
    for domain in mixture.domains:
        assert domain.held_out is not None
        tokens = np.asarray(domain.held_out.tokens)
        nats = by_hand(network, tokens)
        text = store.tokenizer.decode(tokens[1:].tolist(), skip_special_tokens=True)
        # The first token is not predicted, and may be a part of a character.
        first = len(store.tokenizer.decode(tokens[:1].tolist()).encode())
        counts = store.domains[domain.name]
        assert abs(counts.held_out_bytes - first - len(text.encode())) <= 3
        bpb = sum(nats) / math.log(2) / (counts.held_out_bytes - first)
        assert found.bpb[domain.name] == pytest.approx(bpb, rel=2e-3)
        total, count, size = (
            total + sum(nats),
            count + len(nats),
            size + counts.held_out_bytes - first,
        )
    assert found.tokens == count
    assert abs(found.bytes - size) <= 9
    assert found.loss == pytest.approx(total / count, rel=1e-6)
    assert found.bpb_mean == pytest.approx(sum(found.bpb.values()) / 3)


def masked_by_hand(network: TeleFLM, held_out: IndexedTokens) -> list[float]:
    """Nats of every token but the first of a document: windows by hand, but of each what one
    document has there."""
    nats, ends = [], np.cumsum(held_out.lengths)
    for end, length in zip(ends, held_out.lengths, strict=True):
        first = end - length
        cuts = [first, *range(first + -first % LENGTH, end, LENGTH), end]
        for start, stop in pairwise(dict.fromkeys(cuts)):
            # A window's last token predicts the first one of the next.
            nats += by_hand(network, held_out.tokens[start : min(stop + 1, end)])
    return nats


def test_documents_that_do_not_see_each_other(
    network: TeleFLM, mixture: Mixture, store: TokenStore
) -> None:
    found = evaluated(network, mixture, 10**9, document_mask=True)
    assert found is not None
    lengths = store.tokenizer.byte_lengths
    assert lengths is not None
    for domain in mixture.domains:
        held_out = domain.held_out
        assert held_out is not None
        documents = [np.asarray(held_out.document(i)) for i in range(len(held_out))]
        size = sum(int(lengths[document[1:]].sum()) for document in documents)
        expected = sum(masked_by_hand(network, held_out)) / math.log(2) / size
        assert found.bpb[domain.name] == pytest.approx(expected, rel=1e-6)
    first_tokens = sum(len(d.held_out) for d in mixture.domains if d.held_out)
    whole = evaluated(network, mixture, 10**9)
    assert whole is not None and found.tokens == whole.tokens - first_tokens + 3


@pytest.mark.parametrize("kind", ["pieces", "unigram"])
def test_bytes_are_the_source_text_s_with_any_tokenizer(
    corpus: Path, tmp_path: Path, kind: str
) -> None:
    # Pieces begin with a space that no text has; NFKC makes one letter of the ligature's two.
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "text.jsonl").write_text(
        "".join(
            json.dumps({"text": f"ﬁne ship {i} 那船\n" * (i % 7 + 1)}) + "\n" for i in range(90)
        )
    )
    made = prepare([folder], foreign(tmp_path)[kind], tmp_path / "store", held_out=0.2)
    model = MODEL.model_copy(update={"vocab_size": made.vocab_size})
    network = build_model(model, initial_state(model, 0), torch.float32)
    opened = open_domains(made.path)
    found = evaluated(network, opened, 10**9)
    assert found is not None
    counts, held_out = made.domains["text"], made.held_out("text")
    first = held_out.document(0)
    assert found.tokens == counts.held_out_tokens - 1
    sizes = opened.domains[0].held_out_bytes
    assert sizes is not None
    # All of the text is predicted behind a BOS, else all but the first token's share.
    unseen = 0.0 if made.tokenizer.opening else sizes[0] / (first.size - 1)
    expected = counts.held_out_bytes - unseen
    assert found.bytes == round(expected)
    nats = sum(by_hand(network, np.asarray(held_out.tokens)))
    assert found.bpb["text"] == pytest.approx(nats / math.log(2) / expected, rel=1e-6)
    masked = evaluated(network, opened, 10**9, document_mask=True)
    assert masked is not None
    assert masked.tokens == counts.held_out_tokens - len(held_out)
    if not made.tokenizer.opening:
        # Of each document the first token's share is not predicted.
        unseen = sum(
            size / (length - 1) for size, length in zip(sizes, held_out.lengths, strict=True)
        )
    assert masked.bytes == round(counts.held_out_bytes - unseen)


def test_megatron_s_own_pairs_have_no_text(corpus: Path, tmp_path: Path) -> None:
    tokenizer = foreign(tmp_path)["pieces"]
    made = prepare([corpus], tokenizer, tmp_path / "store", held_out=0.1)
    (made.path / "code.held-out.bytes").unlink()
    mixture = open_domains({"code": (str(made.path / "code"), 1.0)}, tokenizer)
    model = MODEL.model_copy(update={"vocab_size": made.vocab_size})
    found = evaluated(build_model(model, initial_state(model, 0), torch.float32), mixture, 64)
    assert found is not None
    assert (found.bpb, found.bpb_mean, found.bytes) == ({}, None, 0)


def test_a_part_is_the_beginning(network: TeleFLM, mixture: Mixture) -> None:
    some, more = (evaluated(network, mixture, n) for n in (48, 64))
    assert some is not None and more is not None
    assert (some.tokens, more.tokens) == (3 * 48, 3 * 64)
    parts = [np.asarray(d.held_out.tokens[:49]) for d in mixture.domains if d.held_out]
    nats = sum(sum(by_hand(network, part)) for part in parts)
    assert some.loss == pytest.approx(nats / (3 * 48), rel=1e-6)


def test_bf16_is_close_and_nothing_is_left_behind(network: TeleFLM, mixture: Mixture) -> None:
    exact, rough = (
        evaluated(network, mixture, 64, "fp32"),
        evaluated(network, mixture, 64, "bf16"),
    )
    assert exact is not None and rough is not None
    assert 0 < abs(rough.loss / exact.loss - 1) < 1e-3
    assert all(p.grad is None for p in network.parameters())
    assert torch.is_grad_enabled()


def test_no_more_is_read_than_asked_but_for_one_window(network: TeleFLM, mixture: Mixture) -> None:
    for asked, read in ((1, LENGTH), (LENGTH, LENGTH), (5 * LENGTH + 3, 5 * LENGTH)):
        found = evaluated(network, mixture, asked)
        assert found is not None
        assert found.tokens == 3 * read

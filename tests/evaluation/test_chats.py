"""Conversations are evaluated by their replies alone, each by itself."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from teleflm.data.mixture import open_domains
from teleflm.data.sources import Reading
from teleflm.data.store import TokenStore
from teleflm.errors import ConfigError, DataError
from teleflm.evaluation.bpb import evaluate
from teleflm.evaluation.measure import measure
from teleflm.evaluation.scorer import Scorer, open_scorer
from teleflm.evaluation.text import open_text
from teleflm.evaluation.windows import ChatsRead
from teleflm.model.init import initial_state
from tests.growing import opened_of
from tests.talks import chat_store
from tests.tiny import MODEL

NUMBER, HELD_OUT = 60, 16


@pytest.fixture(scope="module")
def chats(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return chat_store(tmp_path_factory.mktemp("chats"), tokenizer_dir, NUMBER)


def scorer_of(store: TokenStore, length: int) -> Scorer:
    update = {"vocab_size": store.vocab_size, "max_position_embeddings": 128}
    model = MODEL.model_copy(update=update)
    return open_scorer(
        opened_of(model, initial_state(model, 0)), length, "fp32", torch.device("cpu")
    )


def nats_alone(scorer: Scorer, ids: np.ndarray, counted: np.ndarray) -> float:
    """Of the tokens of a conversation that count, with nothing else in the row."""
    row = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        logs = scorer.network(row[None, :-1])[0].double().log_softmax(-1)
    nats = -logs.gather(1, row[1:, None])[:, 0]
    return float(nats[torch.from_numpy(counted[1:].astype(bool))].sum())


@pytest.mark.parametrize("whole", [False, True])
def test_replies_alone_are_predicted_and_no_conversation_sees_another(
    chats: TokenStore, whole: bool
) -> None:
    scorer = scorer_of(chats, 128)
    parts = [(chats.held_out("talks"), chats.held_out_counted("talks"))]
    if whole:
        parts.append((chats.train("talks"), chats.counted("talks")))
    nats, counts, size = 0.0, 0, 0
    for ids, counted in parts:
        assert counted is not None and chats.tokenizer.byte_lengths is not None
        for index in range(len(ids)):
            document, counts_here = ids.document(index), counted.document(index)
            nats += nats_alone(scorer, document, counts_here)
            counts += int(counts_here.sum())
            size += int(chats.tokenizer.byte_lengths[document[counts_here > 0]].sum())
    read: list[int] = []
    text = open_text(chats.path, chats.tokenizer, whole, Reading())
    found = measure(scorer, text, "disjoint", read.append)
    assert (found.tokens, found.bytes) == (counts, size)
    assert found.loss == pytest.approx(nats / counts, rel=1e-6)
    assert found.bpb["talks"] == pytest.approx(nats / math.log(2) / size, rel=1e-6)
    assert found.conversations == ChatsRead(NUMBER if whole else HELD_OUT)
    assert (
        sum(read)
        == text.bytes
        == sum(of.held_out_bytes + whole * of.bytes for of in chats.domains.values())
    )


@pytest.mark.parametrize("most", [1, 150, 10**9])
@pytest.mark.parametrize("length", [20, 128])
def test_the_figures_are_those_of_the_run_that_is_tuned(
    chats: TokenStore, length: int, most: int
) -> None:
    """With rows that are too short for many conversations, and of the first ones alone, too."""
    scorer = scorer_of(chats, length)
    text = open_text(chats.path, None, False, Reading())
    found = measure(scorer, text, "disjoint", lambda _: None, most)
    own = evaluate(
        scorer.engine.loss_sum,
        open_domains(chats.path),
        vocab_size=chats.vocab_size,
        sequence_length=length,
        tokens=most,
    )
    assert own is not None
    assert (found.tokens, found.bytes) == (own.tokens, own.bytes)
    assert found.loss == pytest.approx(own.loss, rel=1e-6)
    assert found.conversations is not None
    if most == 10**9:
        assert (found.conversations.cut > 0) == (found.conversations.left_out > 0) == (length == 20)


def test_a_part_of_them_is_enough(chats: TokenStore) -> None:
    scorer, text = scorer_of(chats, 128), open_text(chats.path, None, True, Reading())
    found = measure(scorer, text, "disjoint", lambda _: None, tokens=200)
    assert found.conversations is not None and len(found.windows["talks"]) < NUMBER
    assert found.conversations.read == len(found.windows["talks"])
    lengths = chats.train("talks").lengths[: found.conversations.read + 1] - 1
    assert lengths[:-1].sum() <= 200 < lengths.sum()


def test_what_cannot_be(chats: TokenStore) -> None:
    text = open_text(chats.path, None, False, Reading())
    with pytest.raises(ConfigError, match="each read by itself"):
        measure(scorer_of(chats, 128), text, "rolling", lambda _: None)
    with pytest.raises(DataError, match="none of 16 conversations has a reply that ends within"):
        measure(scorer_of(chats, 4), text, "disjoint", lambda _: None)

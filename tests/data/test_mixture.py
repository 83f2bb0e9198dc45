import shutil
from collections import Counter
from pathlib import Path

import pytest

from teleflm.config.run import ReadEpochs
from teleflm.data.identity import identify
from teleflm.data.loader import Loader
from teleflm.data.mixture import open_domains
from teleflm.data.store import TokenStore, prepare
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.errors import DataError


def test_a_store_is_weighted_by_its_tokens(store: TokenStore) -> None:
    mixture = open_domains(str(store.path))
    assert [domain.name for domain in mixture.domains] == ["chinese", "code", "english"]
    for domain in mixture.domains:
        assert domain.weight == domain.train.tokens.size == store.domains[domain.name].tokens
        assert domain.held_out is not None
    assert mixture.vocab_size == store.vocab_size
    assert mixture.tokenizer is not None
    assert mixture.tokenizer.fingerprint == store.fingerprint


def test_sources_by_domain(
    corpus: Path, store: TokenStore, tokenizer_dir: Path, tmp_path: Path
) -> None:
    single = prepare([corpus / "code.txt"], tokenizer_dir, tmp_path / "single", held_out=0.1)
    mixture = open_domains(
        {
            "english": (str(store.path), 2),
            "python": (str(single.path), 1),
            "chinese": (str(store.path), 0),
        }
    )
    english, python, _ = mixture.domains
    assert english.train.tokens.size == store.domains["english"].tokens
    assert python.train.tokens.size == single.domains["code"].tokens
    assert [domain.weight for domain in mixture.domains] == [2, 1, 0]
    with pytest.raises(DataError, match="no domain 'latin'; it has"):
        open_domains({"latin": (str(store.path), 1)})


def by_epochs(store: TokenStore, **epochs: float) -> dict[str, ReadEpochs]:
    return {name: ReadEpochs(path=str(store.path), epochs=e) for name, e in epochs.items()}


def test_epochs_are_how_often_a_source_is_read(store: TokenStore) -> None:
    tokens = {name: counts.tokens for name, counts in store.domains.items()}
    epochs = {"chinese": 20.0, "code": 0.0, "english": 7.5}
    mixture = open_domains(by_epochs(store, **epochs))
    assert {d.name: d.weight for d in mixture.domains} == {n: tokens[n] * epochs[n] for n in tokens}
    length = 4
    budget = round(sum(tokens[name] * epochs[name] for name in tokens) / length)
    loader = Loader(
        mixture.domains, seed=0, sequence_length=length, global_batch=budget, vocab_size=424
    )
    read = Counter(loader.sources(0))
    for name in ("chinese", "english"):
        counts = [count for (domain, _), count in read.items() if domain == name]
        windows = (tokens[name] - 1) // length
        assert len(counts) == windows
        # Of the last block, which is cut, shares hold on average only.
        assert sum(counts) / windows == pytest.approx(epochs[name], rel=0.02)
        assert max(counts) - min(counts) <= 1
    assert not any(domain == "code" for domain, _ in read)


def test_epochs_are_the_same_data_as_their_weights(store: TokenStore) -> None:
    one_each = by_epochs(store, chinese=1, code=1, english=1)
    assert identify(open_domains(one_each).domains) == identify(open_domains(store.path).domains)
    doubled = by_epochs(store, chinese=2, code=1, english=1)
    assert identify(open_domains(doubled).domains) != identify(open_domains(store.path).domains)


def test_megatron_prefixes(store: TokenStore, tokenizer_dir: Path, tmp_path: Path) -> None:
    for suffix in (".bin", ".idx"):
        shutil.copy(store.path / f"code{suffix}", tmp_path / f"corpus_text_document{suffix}")
    prefix = str(tmp_path / "corpus_text_document")
    mixture = open_domains({"code": (prefix, 1.0)})
    assert mixture.domains[0].held_out is None
    assert mixture.tokenizer is None
    assert mixture.vocab_size is None
    mixture = open_domains({"code": (str(store.path / "code"), 1.0)}, tokenizer_dir)
    assert mixture.domains[0].held_out is not None
    assert mixture.vocab_size == store.vocab_size
    with pytest.raises(
        DataError, match=r"data\.path\.code: .*neither a token store nor the prefix"
    ):
        open_domains({"code": (prefix + ".bin", 1.0)})


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_are_checked(store: TokenStore, weight: float) -> None:
    with pytest.raises(DataError, match=r"data\.path\.code: a weight of"):
        open_domains({"code": (str(store.path), weight)})
    with pytest.raises(DataError, match="no domain has a weight or epochs above 0"):
        open_domains({"code": (str(store.path), 0.0)})
    with pytest.raises(DataError, match="no domain has a weight or epochs above 0"):
        open_domains(by_epochs(store, code=0.0))


def test_one_tokenizer_for_all(corpus: Path, store: TokenStore, tmp_path: Path) -> None:
    other: Tokenizer = train_tokenizer([corpus], 364, tmp_path / "other")
    second = prepare([corpus / "code.txt"], tmp_path / "other", tmp_path / "second", held_out=0.1)
    assert second.vocab_size == other.vocab_size
    with pytest.raises(DataError, match="another tokenizer than"):
        open_domains({"english": (str(store.path), 1), "code": (str(second.path), 1)})
    with pytest.raises(DataError, match="another tokenizer than the tokenizer given"):
        open_domains(str(store.path), tmp_path / "other")

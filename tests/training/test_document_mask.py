"""A run with a document mask trains and evaluates with it, and is evaluated and certified so."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import teleflm.certificate.paths as paths
from teleflm.certificate.paths import certify_paths
from teleflm.certificate.record import Certificate
from teleflm.checkpoint.load import find_checkpoint
from teleflm.checkpoint.manifest import read_manifest
from teleflm.data.store import TokenStore
from teleflm.evaluation.evaluate import Settings, evaluate_path
from teleflm.files import read_jsonl
from teleflm.growth.grow import Growth
from teleflm.training.growing import grow_checkpoint
from teleflm.training.loop import train
from tests.tiny import run_config, trajectory

TOKENS = 2000  # of some documents each


@pytest.fixture(scope="module")
def runs(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The same run with and without."""
    folder = tmp_path_factory.mktemp("runs")
    more = {"evaluation": {"tokens": TOKENS}}
    return {
        mask: train(
            run_config(store.path, folder / str(mask), data={"document_mask": mask}, **more)
        )
        for mask in (False, True)
    }


def test_it_trains_on_fewer_targets_in_other_contexts(runs: dict[bool, Path]) -> None:
    plain, masked = (trajectory(runs[mask]) for mask in (False, True))
    assert plain[0]["loss"] != masked[0]["loss"]
    assert [line["tokens"] for line in plain] == [line["tokens"] for line in masked]
    ends = [read_jsonl(runs[mask] / "evaluation.jsonl")[-1] for mask in (False, True)]
    assert ends[1]["tokens"] < ends[0]["tokens"]


@pytest.mark.parametrize("mask", [False, True])
def test_its_checkpoints_are_evaluated_as_it_was(runs: dict[bool, Path], mask: bool) -> None:
    own = read_jsonl(runs[mask] / "evaluation.jsonl")[-1]
    facts, _ = evaluate_path(
        runs[mask],
        Settings(tokens=TOKENS),
        None,
        torch.device("cpu"),
        lambda *_: nullcontext(lambda _: None),
    )
    assert facts["document_mask"] is mask
    assert facts["bpb"] == pytest.approx(own["bpb"], rel=1e-6)
    assert facts["tokens"] == own["tokens"]


@pytest.mark.parametrize("mask", [False, True])
def test_its_growth_is_certified_so(
    runs: dict[bool, Path], mask: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    certify = paths.certify

    def watched(*states: object, document_mask: bool, **more: object) -> Certificate:
        asked.append(document_mask)
        return certify(*states, document_mask=document_mask, steps=1, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(paths, "certify", watched)
    model = read_manifest(find_checkpoint(runs[mask])).model
    growth = Growth(model.model_copy(update={"num_hidden_layers": 3}))
    grow_checkpoint(runs[mask], tmp_path / "grown", growth)
    assert certify_paths(runs[mask], tmp_path / "grown").exact
    assert asked == [mask]

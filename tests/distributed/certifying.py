"""What a rank does in a case of the certificate suite."""

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import teleflm
from teleflm.certificate.certify import certify_on, growths_since, is_regrown
from teleflm.certificate.paths import certify_paths
from teleflm.checkpoint.open import open_state
from teleflm.cli.main import main
from teleflm.config.run import ParallelConfig
from teleflm.errors import CheckpointError
from teleflm.growth.state import Kind
from teleflm.model.region import Region
from teleflm.model.streamed import streamed_network
from teleflm.parallel.ranks import Ranks


@contextlib.contextmanager
def few_steps() -> Iterator[pytest.MonkeyPatch]:
    """Trajectories that eight processes on two cores go in seconds."""
    with pytest.MonkeyPatch.context() as patch:
        short = partial(certify_on, steps=2)
        patch.setattr("teleflm.certificate.paths.certify_on", short)
        yield patch


def certify(
    source: Path, grown: Path, parallel: dict[str, Any], short_rank: int | None = None
) -> dict[str, Any]:
    """The certificate on a layout, one of whose ranks may have no memory."""
    with few_steps() as patch:
        if dist.get_rank() == short_rank:
            patch.setattr("teleflm.certificate.paths._available_memory", lambda _: 0)
        return certify_paths(source, grown, ParallelConfig(**parallel)).to_json()


def certify_on_one_rank(source: Path, grown: Path) -> bool | None:
    """The verdict of the last rank, which asks for it by itself; None of the others."""
    parent, child = (open_state(path).state.in_memory() for path in (source, grown))
    last = dist.get_rank() == dist.get_world_size() - 1
    return teleflm.certify(parent, child, steps=1).exact if last else None


def logits(path: Path, tokens: Tensor, bad_rank: int | None = None) -> Tensor | str:
    """What a checkpoint computes, streamed by all ranks together; or why it cannot be read, where
    one of them cannot."""
    state = open_state(path).state

    def read(name: str, region: Region) -> Tensor:
        if dist.is_initialized() and dist.get_rank() == bad_rank and "down_proj" in name:
            raise CheckpointError(f"{name} is not there")
        return state.weight(name, region)

    try:
        logits: Tensor = streamed_network(state.model, read, torch.float64, Ranks())(tokens)
        return logits
    except CheckpointError as error:
        return str(error)


def regrown_but_for_one_piece(source: Path, grown: Path) -> list[bool | None]:
    """Whether a growth is what its lineage says: first as it is, then for each of the ranks with
    one second moment wrong that only this one looks at."""
    ranks, parent, child = Ranks(), open_state(source).state, open_state(grown).state
    growths = growths_since(parent.lineage, child.lineage)
    found = [is_regrown(parent, child, growths, ranks)]
    for bad_rank in range(ranks.count):

        def read(kind: Kind, name: str, region: Region, bad_rank: int = bad_rank) -> Tensor:
            value = child.read(kind, name, region)
            if kind == "exp_avg_sq" and ranks.rank == bad_rank:
                value.view(-1)[-1] += 1e-30
            return value

        found.append(is_regrown(parent, replace(child, read=read), growths, ranks))
    return found


def command(*arguments: object) -> tuple[Any, str, str]:
    """The command line as torchrun starts it: exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with few_steps() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["teleflm", *map(str, arguments)])
        patch.setenv("RANK", str(dist.get_rank()))
        patch.setenv("WORLD_SIZE", str(dist.get_world_size()))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    return end.value.code, out.getvalue(), err.getvalue()

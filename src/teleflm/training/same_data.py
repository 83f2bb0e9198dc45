"""A run that goes on reads what it read before, wherever that lies now."""

import sys
from collections.abc import Mapping
from pathlib import Path

from teleflm.data.identity import Source, identify
from teleflm.data.mixture import Mixture
from teleflm.errors import DataError
from teleflm.parallel.ranks import Ranks

Sources = Mapping[str, Source]


def common_sources(
    mixture: Mixture, ranks: Ranks, document_mask: bool = False
) -> dict[str, Source]:
    """What all ranks read, with or without a document mask; each looks at its own files, which may
    lie on a disk of its own.

    Raises:
        DataError: two ranks read something else.
    """
    found = ranks.gathered(lambda: identify(mixture.domains, document_mask))
    for rank, sources in enumerate(found):
        if told := difference(found[0], sources):
            raise DataError(
                f"data.path: rank {rank} does not read what rank 0 reads: {told}; give all "
                "machines the same files"
            )
    return found[0]


def check_same_data(run_dir: Path, saved: Sources | None, now: Sources, ranks: Ranks) -> None:
    """Refuse to go on with a run on other training text. Other held-out text is told: it changes
    what evaluations say, and not the run.

    Args:
        run_dir: the run's folder.
        saved: what its checkpoint was trained on, None where that does not say.
        now: what is to be read from here on.
        ranks: the first of them tells.

    Raises:
        DataError: naming the domain, what is different, and the way to another run.
    """
    if saved is None:
        untold = "its checkpoint does not say what data it was trained on"
        _tell(ranks, f"{run_dir}: {untold}, so nobody can tell whether this is the same")
        return
    if told := difference(saved, now):
        raise DataError(
            f"{run_dir}: its run was trained on other data: {told}; restore the data to go "
            f"on with it, or train on from it with this data in another run: run_dir=… "
            f"start_from={run_dir}"
        )
    held_out = {name: source.held_out for name, source in now.items()}
    if held_out != {name: source.held_out for name, source in saved.items()}:
        effect = "evaluations before and after this start do not compare"
        _tell(ranks, f"{run_dir}: the held-out text is not what it was; {effect}")


def _tell(ranks: Ranks, line: str) -> None:
    if ranks.first:
        print(line, file=sys.stderr, flush=True)


def difference(saved: Sources, now: Sources) -> str | None:
    """The first difference between what is trained on, None where there is none."""
    before, after = _trained_on(saved), _trained_on(now)
    if before.keys() != after.keys():
        return f"domains {_names(before)} there, {_names(after)} here"
    for name, old in before.items():
        new = after[name]
        if old.tokens != new.tokens:
            return f"domain {name!r} has {old.tokens:,} tokens there, {new.tokens:,} here"
        if old.digest != new.digest:
            return f"domain {name!r} has as many tokens, but others, or parted otherwise"
    # After the text itself, whose size is a store's weight.
    for name, old in before.items():
        new = after[name]
        if old.share != new.share:
            return (
                f"of every 65,536 sequences domain {name!r} gives {old.share:,} there, "
                f"{new.share:,} here (data.path weights it so)"
            )
    return None


def _trained_on(sources: Sources) -> dict[str, Source]:
    return {name: source for name, source in sources.items() if source.share}


def _names(sources: Sources) -> str:
    return ", ".join(map(repr, sources))

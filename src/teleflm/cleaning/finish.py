"""What was counted, added up: clean.json, and the result under its name."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teleflm.cleaning.blocks import READ
from teleflm.cleaning.folders import Folders
from teleflm.cleaning.recipe import Work
from teleflm.cleaning.step import CorpusStep
from teleflm.cleaning.tally import BINS, Flow, Sample, Tally, merged
from teleflm.errors import DataError, MachineError
from teleflm.files import write_whole
from teleflm.report.clean import write_clean_report

FORMAT = 1


def finish(folders: Folders, steps: list[Work], title: str, shards: int) -> None:
    """Add up the tallies, and make the result whole.

    Raises:
        DataError: no source has text.
        MachineError: a step did not see what the one before had let through, or not all shards.
    """
    names = (READ, *(work.name for work in steps))
    files = {name: list(folders.tally(name, 0).parent.glob("*.json")) for name in names}
    for name, its_files in files.items():
        if len(its_files) != shards:
            raise MachineError(
                f"{folders.out}: the step {name!r} has done {len(its_files)} of {shards} tasks; "
                "run the same command again, it goes on from what was finished"
            )
    tallies = {name: merged(its_files) for name, its_files in files.items()}
    if not tallies[READ].total.documents_in:
        raise DataError(
            f"no text in any file of source {', '.join(tallies[READ].sources)}; fill them, or "
            "give other sources"
        )
    _check_flow(tallies, folders)
    for name in names[1:]:
        # What a corpus step does besides judging: its signatures and its rounds.
        for other in folders.tallies.glob(f"{name}.*"):
            tallies[name].seconds += merged(other.glob("*.json")).seconds
    content = summary(tallies, title)
    for work, step in zip(steps, content["steps"], strict=True):
        does = work.kind(work.settings)
        step["clusters"] = []
        if isinstance(does, CorpusStep):
            step["clusters"] = does.clusters(folders.step(work.name))
    write_clean_report(folders.report, content)
    folders.new_text.mkdir(parents=True, exist_ok=True)
    if not folders.text.exists():
        os.rename(folders.new_text, folders.text)
    write_whole(folders.clean, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _check_flow(tallies: Mapping[str, Tally], folders: Folders) -> None:
    """Documents lie in files between phases, and readers pass over what they cannot read."""
    before: dict[str, tuple[int, int]] | None = None
    for name, tally in tallies.items():
        entered = {
            source: (flow.documents_in, flow.bytes_in)
            for source, flow in tally.sources.items()
            if flow.documents_in
        }
        if before is not None and entered != before:
            raise MachineError(
                f"{folders.work}: the step {name!r} read {entered} (documents and bytes by source) "
                f"where {before} was written: the disk lost some; start over with --force"
            )
        before = {
            source: (flow.documents_out, flow.bytes_out)
            for source, flow in tally.sources.items()
            if flow.documents_out
        }


def summary(tallies: Mapping[str, Tally], title: str) -> dict[str, Any]:
    """The content of clean.json."""
    read, *steps = tallies.values()
    last = [read, *steps][-1]
    sources = {}
    for name, flow in read.sources.items():
        kept = last.sources.get(name, Flow())
        sources[name] = {
            "documents": flow.documents_in,
            "bytes": flow.bytes_in,
            "tokens": _tokens(read, name, "bytes_in"),
            "kept_documents": kept.documents_out,
            "kept_bytes": kept.bytes_out,
            "kept_tokens": _tokens(last, name, "bytes_out"),
        }
    return {
        "format": FORMAT,
        "title": title,
        "without_text": read.details["without text"],
        "sources": sources,
        "steps": [_step(name, tallies[name]) for name in list(tallies)[1:]],
    }


def _step(name: str, tally: Tally) -> dict[str, Any]:
    total = tally.total
    return {
        "name": name,
        "documents_in": total.documents_in,
        "documents_out": total.documents_out,
        "bytes_in": total.bytes_in,
        "bytes_out": total.bytes_out,
        "tokens_in": _all_tokens(tally, "bytes_in"),
        "tokens_out": _all_tokens(tally, "bytes_out"),
        "reasons": dict(sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))),
        "details": dict(sorted(tally.details.items())),
        "seconds": round(tally.seconds, 3),
        "sources": {
            source: {
                "documents_in": flow.documents_in,
                "documents_out": flow.documents_out,
                "bytes_in": flow.bytes_in,
                "bytes_out": flow.bytes_out,
            }
            for source, flow in sorted(tally.sources.items())
        },
        "scores": [tally.scores[bin] for bin in range(BINS)] if tally.scores else [],
        "samples": {
            "kept": [_sample(sample) for sample in tally.kept],
            "dropped": [_sample(sample) for sample in tally.dropped],
        },
    }


def _sample(sample: Sample) -> dict[str, str]:
    return {
        "id": sample.id,
        "source": sample.source,
        "reason": sample.reason,
        "text": sample.text,
    }


def _tokens(tally: Tally, source: str, size: str) -> int | None:
    """An estimate, at the rate of the source's sample, or that of all where it has none."""
    flow = tally.sources.get(source, Flow())
    sample = flow if flow.sampled_bytes else tally.total
    if not sample.sampled_bytes:
        return None
    return round(getattr(flow, size) * sample.sampled_tokens / sample.sampled_bytes)


def _all_tokens(tally: Tally, size: str) -> int | None:
    counts = [_tokens(tally, source, size) for source in tally.sources]
    return None if None in counts or not counts else sum(count or 0 for count in counts)


def read_summary(path: Path) -> dict[str, Any]:
    """What clean.json says."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content

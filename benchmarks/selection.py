"""Does choosing pay? A small model tuned on a tenth of a made-up set, chosen and at random.

The set has tasks of 24 kinds, some frequent and some rare, and beside them a fifth of copies and a
fifth of noise. A model that has read plain text of the same kinds chooses a tenth of it by `data
select`, and is tuned on that, and on as many records at random, for each seed. What is measured are
the kinds and the noise in both, and the loss of replies to other questions: kinds alike, and as
frequent as in the set.

    python benchmarks/selection.py --records 3000 --base-steps 150 --steps 20 --seeds 3
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.chat_tasks import KINDS, NOISE, Task, planted, tasks
from teleflm.checkpoint.open import open_state
from teleflm.selection.measure import measure
from teleflm.selection.samples import Sample
from teleflm.selection.tokens import Writing

_MODEL = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
# Of the run over plain text; tuning has a third of it.
_RATE = 6e-3
_TESTED = 2000


def teleflm(folder: Path, *arguments: str) -> str:
    """Run a verb in the folder; its standard output."""
    command = [sys.executable, "-m", "teleflm", *arguments]
    return subprocess.run(command, cwd=folder, check=True, text=True, stdout=-1).stdout


def train(folder: Path, verb: str, name: str, steps: int, rate: float, **more: object) -> Path:
    """Have a run, evaluated at its end alone."""
    run = {
        "run_dir": name,
        "training": {"steps": steps, "global_batch": 16},
        "optimizer": {"learning_rate": rate, "matrix_learning_rate": rate},
        "schedule": {"warmup_steps": 10, "min_ratio": 0.1},
        "checkpoint": {"every": steps},
        "evaluation": {"every": steps, "prompts": []},
        **more,
    }
    (folder / "run.yaml").write_text(json.dumps(run))
    teleflm(folder, verb, "run.yaml")
    return folder / name


def write(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    """A record a line."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def base_model(folder: Path, steps: int) -> None:
    """tokenizer/ and base/, which has read plain text of the kinds."""
    texts = [{"text": f"{task.question}\n{task.answer}"} for task in tasks(4000, seed=99)]
    write(folder / "text.jsonl", texts)
    teleflm(
        folder, *["tokenizer", "train", "--vocab-size", "1024", "--out", "tokenizer", "text.jsonl"]
    )
    teleflm(folder, *["data", "prepare", "--tokenizer", "tokenizer", "--out", "text", "text.jsonl"])
    data = {"path": "text", "sequence_length": 128}
    train(folder, "train", "base", steps, _RATE, model=_MODEL, data=data)


def losses(run: Path, tested: Sequence[Task]) -> tuple[float, float]:
    """Nats per token of replies to `tested`: the mean of the kinds', and of all tokens."""
    opened = open_state(run)
    assert opened.tokenizer is not None
    writing = Writing(opened.tokenizer)
    samples = [Sample(task.record()["messages"], "", "", "", b"") for task in tested]
    written = list(map(writing, samples))
    found = measure(opened.network(), writing.start, written, torch.device("cpu"))
    by_kind: dict[str, list[float]] = {}
    for task, measured in zip(tested, found, strict=True):
        by_kind.setdefault(task.kind, []).extend(measured.nats.tolist())
    every = [nats for of_kind in by_kind.values() for nats in of_kind]
    return statistics.mean(map(statistics.mean, by_kind.values())), statistics.mean(every)


def chosen(folder: Path, records: list[Task], seed: int) -> dict[str, list[Task]]:
    """A tenth by `data select`, and a tenth at random."""
    number = len(records) // 10
    verb = f"data select base set.jsonl --keep {number} --out chosen.jsonl --force --seed {seed}"
    teleflm(folder, *verb.split())
    lines = (folder / "chosen.jsonl").read_text().splitlines()
    places = {json.dumps(task.record(), ensure_ascii=False): task for task in records}
    return {
        "selected": [places[line] for line in lines],
        "random": random.Random(seed).sample(records, number),
    }


def compare(folder: Path, records: list[Task], steps: int, seeds: int) -> None:
    """Tune on both, for each seed."""
    known = {(task.question, task.answer) for task in records}
    tested = [t for t in tasks(_TESTED, seed=77, least=20) if (t.question, t.answer) not in known]
    print("chosen, seed: kinds, noise; nats per token of replies, kinds alike, as frequent")
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(1, seeds + 1):
        for name, some in chosen(folder, records, seed).items():
            write(folder / "some.jsonl", [task.record() for task in some])
            prepare = "data prepare --chat tele-flm --tokenizer tokenizer --out store some.jsonl"
            teleflm(folder, *prepare.split(), "--force")
            run = train(
                folder,
                "sft",
                f"{name}-{seed}",
                steps,
                _RATE / 3,
                start_from="base",
                seed=seed,
                data={"path": "store", "sequence_length": 128},
            )
            found.setdefault(name, []).append(losses(run, tested))
            kinds = len({task.kind for task in some} & KINDS.keys())
            noise = sum(task.noise for task in some) / len(some)
            alike, frequent = found[name][-1]
            print(
                f"  {name}, {seed}: {kinds} of {len(KINDS)}, {noise:.1%}; {alike:.4f}, "
                f"{frequent:.4f}",
                flush=True,
            )
    for name, of_seeds in found.items():
        alike, frequent = (statistics.mean(losses) for losses in zip(*of_seeds, strict=True))
        print(f"  {name}, mean: {alike:.4f}, {frequent:.4f}")


def main(command_line: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--base-steps", type=int, default=150)
    # About three epochs; after many more the loss says what was learnt by heart.
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(command_line)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base_model(folder, arguments.base_steps)
        records = planted(arguments.records, seed=0, sorts=(*NOISE, "mismatched"))
        write(folder / "set.jsonl", [task.record() for task in records])
        compare(folder, records, arguments.steps, arguments.seeds)


if __name__ == "__main__":
    main()

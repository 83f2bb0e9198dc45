"""Instruction tuning beside TRL's SFTTrainer: the same losses, and counted tokens per second.

    pip install trl==1.16.0
    python benchmarks/sft.py

Both tune the same weights on the same made-up conversations, with the loss on the assistant's
tokens alone, in fp32. First unpacked, a conversation a row, in the same order: fails where the
counted tokens of a step differ, or a loss by more than 1e-5 of it. Then packed, each in its own
rows: fails below 1.5 times TRL's counted tokens per second. TRL lays the rows of a micro-batch end
to end, so it is timed at micro-batches of one row, which is where it is quickest on a CPU, and of
all.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import fresh_state, shape
from teleflm.config.huggingface import to_huggingface
from teleflm.config.run import OptimizerConfig, SpikesConfig
from teleflm.data.chat_store import prepare_chat
from teleflm.data.conversation import Conversations
from teleflm.data.loader import Loader
from teleflm.data.mixture import open_domains
from teleflm.data.store import TokenStore
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.growth.state import TrainingState
from teleflm.model.batch import IGNORED, Batch
from teleflm.parallel.engine import OneProcess
from teleflm.training.allocator import keep_freed_memory
from teleflm.training.faults import Watch
from teleflm.training.learner import Learner
from teleflm.training.step import train_step

SAME = 1e-5
FASTER = 1.5
_RATE = 1e-4
_BETAS = (0.9, 0.95)
# As ours, with the marks by which TRL finds the replies.
_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}<_user>{{ m.content }}{% else %}<_bot>"
    "{% generation %}{{ m.content }}<_end>{% endgeneration %}{% endif %}{% endfor %}"
)
Messages = list[dict[str, str]]


@dataclass
class Steps:
    """What was seen of each step: loss, counted tokens, seconds."""

    losses: list[float] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Counted tokens per second, by the median step; the first warms up."""
        return median(n / s for n, s in zip(self.counted[1:], self.seconds[1:], strict=True))


def conversations(number: int) -> list[Messages]:
    """Of one to three turns, in words of no language."""
    chance = random.Random(0)
    letters = "abcdefghijklmnop"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 8))) for _ in range(600)]

    def said(least: int, most: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(least, most)))

    return [
        [
            {"role": role, "content": said(5, most)}
            for _ in range(chance.randint(1, 3))
            for role, most in (("user", 60), ("assistant", 100))
        ]
        for _ in range(number)
    ]


class Ours:
    """Our step on batches of conversations."""

    def __init__(self, state: TrainingState, rows: int) -> None:
        engine = OneProcess(
            state.model,
            torch.float32,
            torch.device("cpu"),
            precision="fp32",
            micro_batch=rows,
        )
        optimizer = OptimizerConfig(
            learning_rate=_RATE, matrix_learning_rate=_RATE, betas=_BETAS, weight_decay=0.0
        )
        self._learner = Learner(state, optimizer, engine=engine)
        self._watch = Watch(SpikesConfig())
        self.steps = Steps()

    def step(self, batch: Batch) -> None:
        """Take one."""
        start = time.perf_counter()
        number = len(self.steps.losses)
        result = train_step(
            self._learner, batch, step=number, factor=1.0, clip=1.0, judge=self._watch.judge
        )
        self.steps.seconds.append(time.perf_counter() - start)
        self.steps.losses.append(result.loss)
        self.steps.counted.append(int((batch.targets != IGNORED).sum()))


def unpacked(folder: Path, told: Sequence[Messages], number: int) -> Iterator[Batch]:
    """Conversations in order, each a row, `number` at a time, filled up at their ends."""
    talk = Conversations(folder, Tokenizer.load(folder))
    for first in range(0, len(told) - number + 1, number):
        encoded = [talk.encode(messages) for messages in told[first : first + number]]
        longest = max(len(each.ids) for each in encoded) - 1
        tokens, starts = (np.zeros((number, longest), np.int64) for _ in range(2))
        targets = np.full((number, longest), IGNORED, np.int64)
        for row, each in enumerate(encoded):
            size = len(each.ids) - 1
            tokens[row, :size] = each.ids[:-1]
            targets[row, :size] = np.where(each.counted[1:], each.ids[1:], IGNORED)
            starts[row, size:] = size
        yield Batch.of((tokens, targets, starts))


def packed(store: Path, rows: int, length: int, vocab_size: int) -> Iterator[Batch]:
    """As a run reads them."""
    loader = Loader(
        open_domains(store).domains,
        seed=0,
        sequence_length=length,
        global_batch=rows,
        vocab_size=vocab_size,
    )
    step = 0
    while True:
        yield Batch.of(loader.batch(step))
        step += 1


def theirs(
    state: TrainingState,
    tokenizer: Path,
    told: Sequence[Messages],
    folder: Path,
    *,
    steps: int,
    rows: int,
    accumulated: int = 1,
    length: int,
    packs: bool,
) -> Steps:
    """What SFTTrainer does with them, `rows` of `accumulated` micro-batches a step, in order."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        TrainerCallback,
    )
    from trl import SFTConfig, SFTTrainer

    network = LlamaForCausalLM(LlamaConfig(**to_huggingface(state.model, "llama")))
    network.load_state_dict(state.weights)
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer / "tokenizer.json"), eos_token="</s>", pad_token="<pad>"
    )
    theirs.chat_template = _TEMPLATE
    found = Steps()

    class Watched(SFTTrainer):
        """Counts the targets of each step."""

        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

        def get_batch_samples(self, *arguments: Any, **named: Any) -> Any:
            samples = super().get_batch_samples(*arguments, **named)
            found.counted.append(sum(int((each["labels"] != -100).sum()) for each in samples[0]))
            return samples

    class Clock(TrainerCallback):
        """Notes a step's loss and time."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self._begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            found.seconds.append(time.perf_counter() - self._begun)

        def on_log(self, *_: Any, **told: Any) -> None:
            if "loss" in told["logs"]:
                found.losses.append(float(told["logs"]["loss"]))

    trainer = Watched(
        model=network,
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=rows // accumulated,
            gradient_accumulation_steps=accumulated,
            learning_rate=_RATE,
            lr_scheduler_type="constant",
            adam_beta1=_BETAS[0],
            adam_beta2=_BETAS[1],
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            assistant_only_loss=True,
            packing=packs,
            max_length=length,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"messages": messages} for messages in told]),
        processing_class=theirs,
        callbacks=[Clock()],
    )
    trainer.train()
    return found


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", default="benchmarks/sft.yaml", help="MODEL")
    parser.add_argument("--sequence-length", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=8, help="of a step")
    parser.add_argument("--steps", type=int, default=20, help="unpacked; packed a quarter")
    parser.add_argument("--conversations", type=int, default=600)
    arguments = parser.parse_args(command_line)
    keep_freed_memory()  # as a run does
    told = conversations(arguments.conversations)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = _store(folder, told)
        model = shape(arguments.shape, TokenStore(store).vocab_size, arguments.sequence_length)
        same = _unpacked(fresh_state(model), store, told, folder, arguments)
        faster = _packed(fresh_state(model), store, told, folder, arguments)
    return 0 if same and faster else 1


def _store(folder: Path, told: Sequence[Messages]) -> Path:
    """A chat store of them, but for one that is held out."""
    text, talks, store = folder / "text.txt", folder / "talks.jsonl", folder / "store"
    text.write_text("\n".join(each["content"] for messages in told for each in messages))
    talks.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in told))
    train_tokenizer([text], 2048, folder / "tokenizer")
    return prepare_chat([talks], folder / "tokenizer", store, "tele-flm", held_out=1e-6).path


def _unpacked(
    state: TrainingState,
    store: Path,
    told: Sequence[Messages],
    folder: Path,
    arguments: argparse.Namespace,
) -> bool:
    steps, rows = arguments.steps, arguments.rows
    ours = Ours(state, rows)
    for batch in islice(unpacked(store, told, rows), steps):
        ours.step(batch)
    other = theirs(
        fresh_state(state.model),
        store,
        told,
        folder,
        steps=steps,
        rows=rows,
        length=arguments.sequence_length,
        packs=False,
    )
    pairs = list(zip(ours.steps.losses, other.losses, strict=True))
    apart = [abs(one / two - 1) for one, two in pairs]
    counted = ours.steps.counted == other.counted
    print(f"unpacked, {steps} steps of {rows} conversations")
    print(f"  counted tokens {'equal' if counted else 'DIFFER'}: {sum(other.counted):,}")
    print(f"  losses differ by {max(apart):.1e} at most, relative (bound {SAME})")
    print(f"  counted tokens/s {ours.steps.rate:,.0f}, TRL {other.rate:,.0f}")
    return counted and max(apart) <= SAME


def _packed(
    state: TrainingState,
    store: Path,
    told: Sequence[Messages],
    folder: Path,
    arguments: argparse.Namespace,
) -> bool:
    steps, rows, length = max(3, arguments.steps // 4), arguments.rows, arguments.sequence_length
    ours = Ours(state, rows)
    for batch in islice(packed(store, rows, length, state.model.vocab_size), steps):
        ours.step(batch)
    others = {}
    for accumulated in (rows, 1):
        others[accumulated] = theirs(
            fresh_state(state.model),
            store,
            told,
            folder,
            steps=steps,
            rows=rows,
            accumulated=accumulated,
            length=length,
            packs=True,
        )
    best = max(other.rate for other in others.values())
    print(f"packed, {steps} steps of {rows} rows of {length}")
    print(f"  counted tokens/s {ours.steps.rate:,.0f}")
    for accumulated, other in others.items():
        print(f"  TRL, micro-batches of {rows // accumulated}: {other.rate:,.0f}")
    print(f"  {ours.steps.rate / best:.2f} times as fast (bound {FASTER})")
    return ours.steps.rate / best >= FASTER


if __name__ == "__main__":
    sys.exit(main())

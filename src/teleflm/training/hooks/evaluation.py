"""In-loop evaluation and sample text."""

from contextlib import ExitStack, closing
from dataclasses import asdict
from statistics import fmean

from teleflm.evaluation.answers import answers
from teleflm.evaluation.bpb import evaluate
from teleflm.generation.generate import generate
from teleflm.model.precision import autocast
from teleflm.training.hooks.base import Hook
from teleflm.training.hooks.jsonl import JsonLines
from teleflm.training.run import Run, StepRecord

# Answers that are written down; of the others there is a figure.
_SHOWN = 8


class Evaluate(Hook):
    """evaluation.jsonl: held-out loss and bits per byte at the run's first step, every
    `evaluation.every` and at the last; at the same times samples.jsonl, prompts continued greedily
    and held-out conversations answered, where one process has the whole network."""

    on_every_rank = True

    def __init__(self) -> None:
        self._open = ExitStack()

    def on_start(self, run: Run) -> None:
        done = run.ranks.from_first(lambda: self._open_files(run))
        if self._is_due(run) and not done:
            self._evaluate(run)

    def _open_files(self, run: Run) -> bool:
        """Open them; whether an earlier process evaluated at this step."""
        self._evaluations, self._samples = (
            self._open.enter_context(closing(JsonLines(run.directory / name, run.step)))
            for name in ("evaluation.jsonl", "samples.jsonl")
        )
        return run.step in self._evaluations.steps | self._samples.steps

    def on_step(self, run: Run, record: StepRecord) -> None:
        if self._is_due(run):
            self._evaluate(run)

    def _is_due(self, run: Run) -> bool:
        # Step 0 too. Where a process stopped in between, the next one has nothing to add.
        return run.own_steps % run.config.evaluation.every == 0 or run.step == run.last_step

    def _evaluate(self, run: Run) -> None:
        config = run.config
        result = evaluate(
            run.learner.engine.loss_sum,
            run.mixture,
            vocab_size=run.learner.model.vocab_size,
            sequence_length=config.data.sequence_length,
            document_mask=config.data.document_mask,
            tokens=config.evaluation.tokens,
            # Many ranks fill up to whole batches, which they cut into micro-batches themselves.
            rows_at_once=config.training.global_batch if run.ranks.many else None,
        )
        figures = {} if result is None else asdict(result)
        if not run.ranks.many:
            self._sample(run)
            figures |= self._answer(run)
        if figures and run.ranks.first:
            self._evaluations.append({"step": run.step, **figures})

    def _sample(self, run: Run) -> None:
        tokenizer, config = run.mixture.tokenizer, run.config
        if tokenizer is None:
            return
        absent = tokenizer.absent_ids(run.learner.model.vocab_size)
        for prompt in config.evaluation.prompts:
            ids = tokenizer.encode_prompt(prompt)
            with autocast(run.learner.engine.device, config.training.precision):
                (new,) = generate(
                    run.learner.network,
                    [ids],
                    config.evaluation.sample_tokens,
                    ends=tokenizer.end_ids,
                    absent=absent,
                )
            text = tokenizer.decode_after(ids, new)
            self._samples.append({"step": run.step, "prompt": prompt, "text": text})

    def _answer(self, run: Run) -> dict[str, float]:
        """Have held-out conversations answered; the figures of that, if there are any."""
        config = run.config
        with autocast(run.learner.engine.device, config.training.precision):
            found = answers(
                run.learner.network,
                run.mixture,
                config.evaluation.answers,
                config.data.sequence_length,
            )
        if not found:
            return {}
        for answer in found[:_SHOWN]:
            self._samples.append({"step": run.step, **asdict(answer)})
        return {
            "answers": len(found),
            "exact_match": fmean(answer.is_exact for answer in found),
        }

    def close(self) -> None:
        self._open.close()

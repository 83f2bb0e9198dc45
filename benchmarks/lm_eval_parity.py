"""lm-eval's own model of transformers beside ours: the same requests, the same answers.

    python benchmarks/lm_eval_parity.py demo/export/granite --include mytasks --tasks a,b

The requests are those of task files with local data. lm-eval's side needs what `pip install
'lm-eval[hf]'` brings. It is asked without its cache of logits, which scores the wrong tokens where
two requests are the same row with answers of different length (0.4.13). Exit code 1 where a
log-likelihood differs by more than 1e-4 of it, or of 1 where it is smaller, or a text at all.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from teleflm.checkpoint.open import open_state
from teleflm.data.tokenizer import Tokenizer
from teleflm.evaluation.scorer import open_scorer
from teleflm.evaluation.tasks import TaskSettings, load_tasks

_BOUND = 1e-4


def differences(ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, float]:
    """How far answers of a kind are apart: log-likelihoods relatively, others by their number."""
    found = {"requests": len(ours), "largest": 0.0, "others": 0}
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(one, str):
            found["others"] += one != other
            continue
        if isinstance(one, tuple):
            found["others"] += one[1] != other[1]
            one, other = one[0], other[0]
        found["largest"] = max(found["largest"], abs(one - other) / max(abs(other), 1.0))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare as the command line asks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", type=Path)
    parser.add_argument("--include", type=Path, required=True)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--few-shot", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--sequence-length", type=int)
    options = parser.parse_args(arguments)
    names = options.tasks.split(",")
    settings = TaskSettings(names, options.include, options.few_shot, options.limit)
    tasks = load_tasks(settings)["tasks"]
    from lm_eval.models.huggingface import HFLM

    from teleflm.evaluation.harness import HarnessModel

    length = options.sequence_length
    scorer = open_scorer(open_state(options.export), length, "fp32", torch.device("cpu"))
    ours = HarnessModel(scorer, Tokenizer.load(options.export))
    theirs = HFLM(
        str(options.export),
        device="cpu",
        dtype="float32",
        max_length=length,
        batch_size=8,
        logits_cache=False,
    )
    result = {}
    for name, task in tasks.items():
        task.set_fewshot_seed(seed=1234)
        task.build_all_requests(limit=options.limit)
        kind = task.instances[0].request_type
        answers = [getattr(model, kind)(task.instances) for model in (ours, theirs)]
        result[name] = {"kind": kind, **differences(*answers)}
    print(json.dumps(result, indent=1))
    return int(any(each["largest"] > _BOUND or each["others"] for each in result.values()))


if __name__ == "__main__":
    raise SystemExit(main())

"""Task files with data of their own, a kind of request each."""

import json
from pathlib import Path
from typing import Any

import yaml

DOCUMENTS = [
    {
        "question": f"The ship {i} sailed past the",
        "choices": [" old harbour", " harbour 那船", " ship", f" {i}"],
        "answer": i % 4,
        "text": f"In the year {i}, 那船在{i}年过了旧港。\n" * (i % 5 + 1),
    }
    for i in range(10)
]
_TASKS: dict[str, dict[str, Any]] = {
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "fewshot_split": "test",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "tiny_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "tiny_text": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
        "metric_list": [{"metric": "exact_match"}],
    },
}


def write_tasks(folder: Path) -> Path:
    """The folder, with the tasks and their documents."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(document, ensure_ascii=False) + "\n" for document in DOCUMENTS]
    (folder / "documents.jsonl").write_text("".join(lines), encoding="utf-8")
    for name, fields in _TASKS.items():
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / "documents.jsonl")}},
            "test_split": "test",
            **fields,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, allow_unicode=True))
    return folder

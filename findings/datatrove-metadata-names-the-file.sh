#!/usr/bin/env bash
# datatrove's writers name a task's file by the template `${rank}.jsonl.gz`, so that no two tasks write
# the same one. The template is filled from the documents' metadata too, and that has the last word:
# where a record has a field `rank` of its own (a search result's, say), it goes to the file of that
# name. Two tasks with such records write to one file, and the task that ends last is what is left.
#
# Seen with datatrove 0.10.1: two tasks of three documents each, written by LocalPipelineExecutor with
# the default JsonlWriter. Without such a field six documents are found again; with `rank: 1` in the
# metadata of all, as a search engine's first hits have, three. No word is said. This script fails
# where that is no longer so. It needs Python >= 3.11 and a minute of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  "datatrove==0.10.1" "orjson==3.13.0"

cat > "$folder/write.py" <<'PYTHON'
import gzip
import sys
from importlib.metadata import version
from pathlib import Path

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger

logger.remove()


class ThreeDocuments(PipelineStep):
    def __init__(self, metadata):
        super().__init__()
        self.metadata = metadata

    def run(self, data=None, rank=0, world_size=1):
        for number in range(3):
            yield Document(f"task {rank}", f"{rank}/{number}", metadata=dict(self.metadata))


found = {}
for name, metadata in (("plain", {"place": 1}), ("named", {"rank": 1})):
    out = Path(sys.argv[1]) / name
    LocalPipelineExecutor(
        [ThreeDocuments(metadata), JsonlWriter(str(out))],
        tasks=2,
        workers=1,
        logging_dir=f"{out}-logs",
    ).run()
    files = sorted(out.glob("*.jsonl.gz"))
    lines = [line for file in files for line in gzip.open(file, "rt")]
    found[name] = len(lines)
    print(f"datatrove {version('datatrove')}, metadata {metadata}: "
          f"{[file.name for file in files]}, {len(lines)} documents of 6")
assert found == {"plain": 6, "named": 3}, "other files than seen"
PYTHON
"$folder/venv/bin/python" "$folder/write.py" "$folder"
echo "as seen: a metadata field called rank names the file"

#!/usr/bin/env bash
# pyarrow's `data_page_size` says how large a data page of Parquet is to be, 1 MiB by default, so a
# column of texts of 1 MB has a page for each of them, one would think. With pyarrow 26.0.1 the size is
# looked at once in `write_batch_size` rows only, 1,024 by default: a hundred such texts are a single
# page of 100 MB, and who reads one row of it holds them all.
#
# Seen with pyarrow 26.0.1: written by default, a reader of one row at a time has 200 MB in Arrow's
# pool at most; with write_batch_size=1 it is about half of that, of the very same rows. This script
# fails where that is no longer so. It needs Python >= 3.11 and a minute of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "pyarrow==26.0.1"

cat > "$folder/read.py" <<'PYTHON'
import sys

import pyarrow as pa
from pyarrow import parquet

file = parquet.ParquetFile(sys.argv[1], pre_buffer=False)
rows = sum(batch.num_rows for batch in file.iter_batches(batch_size=1))
print(rows, pa.default_memory_pool().max_memory())
PYTHON
cat > "$folder/pages.py" <<'PYTHON'
import subprocess
import sys

import pyarrow as pa
from pyarrow import parquet

folder = sys.argv[1]
texts = pa.table({"text": [chr(97 + row % 26) * 1_000_000 for row in range(100)]})
held = {}
for name, options in (("default", {}), ("write_batch_size=1", {"write_batch_size": 1})):
    file = f"{folder}/{name}.parquet"
    parquet.write_table(
        texts, file, compression="none", use_dictionary=False, data_page_size=1 << 20, **options
    )
    command = [sys.executable, f"{folder}/read.py", file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, most = map(int, done.stdout.split())
    assert rows == 100
    held[name] = most
    print(f"pyarrow {pa.__version__}, {name}: at most {most / 1e6:.0f} MB, row by row")
assert held["default"] > 1.8 * held["write_batch_size=1"], "other pages than seen"
PYTHON
"$folder/venv/bin/python" "$folder/pages.py" "$folder"
echo "as seen: pages of long texts are as large as write_batch_size rows, whatever data_page_size says"

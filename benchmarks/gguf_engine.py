"""A checkpoint's GGUF exports in llama.cpp beside our own network: tokens, logits, text, q8_0.

Needs llama-cpp-python, as `make engines` installs it. Texts are of the files in turn. It
fails where tokens or greedy text differ, logits by more than 1e-5 of the largest with an F32 cache
and without flash attention, or bits per byte of q8_0 by more than 1 %.

    python benchmarks/gguf_engine.py demo/export/granite corpus/*.jsonl.zst --texts 10000
"""

import argparse
import io
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from teleflm.checkpoint.export import export
from teleflm.checkpoint.gguf_format import FILE
from teleflm.checkpoint.open import Opened, open_state
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import TeleflmError
from teleflm.generation.generate import generate

ODD = (
    "12345 1,000.5  ½²٣ 7\n\n  8\t9 \r\n 10",
    "def f(x):\n    return x**2  # it's I'LL we'Ve\n\n\n",
    " ",
    "\n \n  \n",
    "é e\u0301 \u200b\u00a0🙂👩‍👩‍👧 ａ１",
    "<s>a</s> <pad><unk> <|im_end|> [PAD3]",
    "第3回，那船在1987年过了旧港。「天地玄黃」",
    "Ünïcödé ſtraße ǅ Ⅷ ㎏ ١٢٣",
)
NEW, WINDOW, WINDOWS = 64, 256, 40


def texts_of(files: list[Path], count: int) -> list[str]:
    """`count` texts, one of each file in turn while it has any."""
    turns = zip_longest(*(records(file) for file in files))
    return list(islice((text for turn in turns for text in turn if text is not None), count))


def records(file: Path) -> Iterator[str]:
    """The texts of a file."""
    with file.open("rb") as raw:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), "utf-8")
        yield from (json.loads(line)["text"] for line in lines)


def loaded(folder: Path, context: int, **options: Any) -> Any:
    """llama.cpp's model."""
    import llama_cpp

    return llama_cpp.Llama(
        str(folder / FILE), n_ctx=context, logits_all=True, verbose=False, **options
    )


def exact() -> dict[str, Any]:
    """What makes llama.cpp compute in F32 throughout."""
    import llama_cpp

    kind = llama_cpp.GGML_TYPE_F32
    return {"type_k": kind, "type_v": kind, "flash_attn": False}


def logits(model: Any, ids: list[int]) -> Tensor:
    """Its logits (S, V)."""
    model.reset()
    model.eval(ids)
    return torch.from_numpy(np.array(model.scores[: len(ids)]))


def different(model: Any, tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """The texts of which it has other tokens than we have."""
    found = []
    for text in texts:
        data = text.encode()
        if model.tokenize(data, add_bos=True, special=False) != [
            *tokenizer.opening,
            *tokenizer.encode(text),
        ]:
            found.append(text)
    return found


def nats(model: Any, rows: list[list[int]]) -> float:
    """Σ −ln p over the rows' tokens but their first."""
    total = 0.0
    for ids in rows:
        chosen = logits(model, ids[:-1]).double().log_softmax(-1)
        total -= float(chosen[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].sum())
    return total


def compare(source: Opened, texts: list[str], root: Path) -> dict[str, Any]:
    """The figures; exports go to `root`."""
    assert source.tokenizer is not None
    tokenizer, network = Tokenizer.load(source.tokenizer), source.network()
    context = min(network.config.max_position_embeddings, WINDOW)
    for dtype in ("fp32", "q8_0"):
        export(source, root / dtype, "gguf", dtype)
    full = loaded(root / "fp32", context, **exact())
    other = different(full, tokenizer, [*ODD, *texts])
    rows = [tokenizer.encode(text)[:context] for text in texts[:: max(1, len(texts) // WINDOWS)]]
    rows = [row for row in rows if len(row) > 1]
    worst = {}
    models = {"f32": full, "defaults": loaded(root / "fp32", context)}
    for name, model in models.items():
        errors = []
        for row in rows[:8]:
            with torch.no_grad():
                ours = network(torch.tensor([row]))[0]
            errors.append(float((logits(model, row) - ours).abs().max() / ours.abs().max()))
        worst[name] = max(errors)
    prompt = rows[0][:16]
    (expected,), written = generate(network, [prompt], NEW), list(prompt)
    for _ in expected:
        written.append(int(logits(full, written)[-1].argmax()))
    spelt = sum(len(tokenizer.decode(row[1:]).encode()) for row in rows)
    q8 = loaded(root / "q8_0", context)
    bpb = [nats(model, rows) / spelt / math.log(2) for model in (full, q8)]
    return {
        "texts": len(texts) + len(ODD),
        "other_tokens": other,
        "logit_error": worst,
        "same_text": written[len(prompt) :] == expected,
        "new_tokens": len(expected),
        "bpb": {"fp32": bpb[0], "q8_0": bpb[1], "tokens": sum(map(len, rows))},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a checkpoint, run or Hugging Face folder")
    parser.add_argument("files", type=Path, nargs="+", help="*.jsonl.zst, a `text` in each line")
    parser.add_argument("--texts", type=int, default=10_000)
    given = parser.parse_args()
    texts = texts_of(given.files, given.texts)
    with tempfile.TemporaryDirectory() as root:
        try:
            found = compare(open_state(given.model), texts, Path(root))
        except TeleflmError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    print(json.dumps({**found, "other_tokens": len(found["other_tokens"])}, indent=1))
    for text in found["other_tokens"][:5]:
        print(f"other tokens: {text[:200]!r}", file=sys.stderr)
    bpb = found["bpb"]
    is_close = found["logit_error"]["f32"] <= 1e-5 and abs(bpb["q8_0"] / bpb["fp32"] - 1) <= 0.01
    return int(bool(found["other_tokens"]) or not found["same_text"] or not is_close)


if __name__ == "__main__":
    sys.exit(main())

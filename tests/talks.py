"""Made-up conversations as a chat store."""

import json
from pathlib import Path

from teleflm.data.chat_store import prepare_chat
from teleflm.data.store import TokenStore


def chat_store(
    folder: Path, tokenizer_dir: Path, number: int, held_out: float = 0.25
) -> TokenStore:
    """A store of `number` conversations of one to three turns, with replies of 1 to 19 digits, so
    that rows have very different numbers of tokens that count."""
    records = []
    for talk in range(number):
        messages = []
        for turn in range(1 + talk % 3):
            seed = 7 * talk + 3 * turn
            messages.append({"role": "user", "content": f"{seed} ships?"})
            messages.append({"role": "assistant", "content": str(seed % 10) * (1 + seed % 19)})
        records.append(json.dumps({"messages": messages}))
    (folder / "talks.jsonl").write_text("\n".join(records), encoding="utf-8")
    out = folder / "chats"
    return prepare_chat([folder / "talks.jsonl"], tokenizer_dir, out, "tele-flm", held_out=held_out)

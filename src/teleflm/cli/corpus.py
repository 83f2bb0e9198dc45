"""What the verbs that read a corpus have in common."""

import re

CORPUS_HELP = ".txt, .md, .jsonl, .json (also .gz, .zst) or .parquet files, or folders of them."
TEXT_KEY_HELP = "Field of a record that holds its text; a.b is field b of field a."
DOMAIN_BY_HELP = "What names a document's domain: record, file or folder."


def printable(text: str) -> str:
    """`text` for a terminal: its control characters are shown, never obeyed."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)

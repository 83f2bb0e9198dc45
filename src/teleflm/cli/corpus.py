"""What the verbs that read a corpus have in common."""

CORPUS_HELP = ".txt, .md, .jsonl, .json (also .gz, .zst) or .parquet files, or folders of them."
TEXT_KEY_HELP = "Field of a record that holds its text; a.b is field b of field a."

"""The formats of exports, by name; the command line needs no more of them."""

from typing import Literal

ExportKind = Literal["granite", "llama", "mistral", "qwen2", "qwen3", "smollm3", "teleflm"]

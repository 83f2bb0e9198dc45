"""The formats of exports, by name; the command line needs no more of them."""

from typing import Literal

HubKind = Literal["granite", "llama", "mistral", "qwen2", "qwen3", "smollm3", "teleflm"]
"""Hugging Face folders, which are read too."""
ExportKind = Literal[HubKind, "gguf"]
"""All formats; what is no Hugging Face folder is written and not read."""
ExportDtype = Literal["fp32", "bf16", "fp16", "q8_0"]

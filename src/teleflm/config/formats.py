"""The formats of exports, by name; the command line needs no more of them."""

from typing import Literal

HubKind = Literal["granite", "llama", "mistral", "qwen2", "qwen3", "smollm3", "teleflm"]
"""Hugging Face folders, which are read too."""
ExportKind = HubKind
ExportDtype = Literal["fp32", "bf16"]

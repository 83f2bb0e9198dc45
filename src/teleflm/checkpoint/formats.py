"""The formats of exports, each an object."""

from typing import get_args

from teleflm.checkpoint.format import Format
from teleflm.checkpoint.gguf_format import GgufFormat
from teleflm.checkpoint.hub_format import HubFormat
from teleflm.config.formats import ExportKind, HubKind

FORMATS: dict[ExportKind, Format] = {
    **{kind: HubFormat(kind) for kind in get_args(HubKind)},
    "gguf": GgufFormat(),
}
"""All that are known, by the name that the command line has for them."""

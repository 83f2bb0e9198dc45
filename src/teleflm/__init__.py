"""Train, grow, prove, plan and ship Tele-FLM language models.

The names below load their modules on first use, so that `import teleflm` is quick and has no
side effect.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ModelConfig": "teleflm.config.model",
    "load": "teleflm.checkpoint.open",
    "grow": "teleflm.growth.grow",
    "certify": "teleflm.certificate.certify",
    "train": "teleflm.training.loop",
}

__all__ = [
    "ModelConfig",
    "__version__",
    "certify",
    "grow",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'teleflm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

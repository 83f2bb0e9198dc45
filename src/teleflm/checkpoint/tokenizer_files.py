"""The files of a tokenizer in a Hugging Face folder, which travel with a model."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy what `source` has of them to `folder`."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


@contextmanager
def tokenizer_beside(folder: Path) -> Iterator[Path | None]:
    """The tokenizer of a model's folder in a folder without the model, for the time of the context;
    None where there is no tokenizer.json."""
    if not (folder / "tokenizer.json").is_file():
        yield None
        return
    with TemporaryDirectory() as alone:
        copy_tokenizer(folder, Path(alone))
        yield Path(alone)

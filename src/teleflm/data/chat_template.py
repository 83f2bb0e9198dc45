"""A model's own way to write a chat as text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from teleflm.data.tokenizer_files import (
    DEFINITION,
    SETTINGS,
    read_object,
    special_tokens,
)
from teleflm.errors import DataError, MissingExtraError

TEMPLATE = "chat_template.jinja"
# Of several templates, the one that transformers takes unless told otherwise.
_DEFAULT = "default"


class ChatTemplate:
    """The template in a tokenizer's folder, which transformers renders, in its sandbox.

    Raises:
        DataError: there is none.
        MissingExtraError: transformers is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from transformers.utils import chat_template_utils
        except ImportError:
            raise MissingExtraError("transformers", "hub") from None
        self._folder = folder
        # It says that it returns a string.
        self._render: Any = chat_template_utils.render_jinja_template
        self.source = _source(folder)
        self._names = special_tokens(folder, read_object(folder / DEFINITION))

    def render(self, messages: Sequence[Mapping[str, str]], answers_next: bool = True) -> str:
        """A chat as text.

        Args:
            messages: each with `role` and `content`.
            answers_next: whether the assistant's next answer is to begin behind it; else the last
                message is the beginning of one, and goes on.

        Raises:
            DataError: the template does not compile, or refuses the chat.
        """
        settings: dict[str, Any] = {
            "chat_template": self.source,
            "add_generation_prompt": answers_next,
            "continue_final_message": not answers_next,
            **self._names,
        }
        try:
            (text,), _ = self._render([[dict(message) for message in messages]], **settings)
        except Exception as error:  # a template is a program, and fails in any way
            raise DataError(
                f"{self._folder}: its chat template cannot be applied ({error}); mend {TEMPLATE} "
                "there"
            ) from error
        return str(text)


def find_template(folder: Path) -> str | None:
    """The template in a tokenizer's folder, if there is one."""
    file = folder / TEMPLATE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    told = read_object(folder / SETTINGS).get("chat_template")
    if isinstance(told, list):  # several, as older folders have them
        told = {each.get("name"): each.get("template") for each in told}.get(_DEFAULT)
    return told if isinstance(told, str) else None


def _source(folder: Path) -> str:
    template = find_template(folder)
    if template is None:
        raise DataError(
            f"{folder}: no chat template there; put the model's as {TEMPLATE} into the folder, or "
            "ask without one"
        )
    return template

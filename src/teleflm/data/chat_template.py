"""A model's own way to write a chat as text."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from teleflm.data.tokenizer_files import (
    DEFINITION,
    SETTINGS,
    TEMPLATE,
    read_object,
    special_tokens,
)
from teleflm.errors import DataError, MissingExtraError

Messages = Sequence[Mapping[str, str]]
"""Each with `role` and `content`."""

Span = tuple[int, int]
"""The first character, and the one behind the last."""

# Of several templates, the one that transformers takes unless told otherwise.
_DEFAULT = "default"
# What transformers takes for a template that marks replies, and how that ends.
_MARKED = re.compile(r"\{%(-?)\s*generation\s*(-?)%\}")
_MARKED_END = re.compile(r"\{%(-?)\s*endgeneration\s*(-?)%\}")


class ChatTemplate:
    """The template in a tokenizer's folder, which transformers renders, in its sandbox.

    Args:
        folder: the tokenizer's.
        name: what errors call the template; without one the folder.

    Attributes:
        source: the template.
        name: what errors call it.
        marks_replies: whether it says itself what replies are, between `{% generation %}` and
            `{% endgeneration %}`.

    Raises:
        DataError: there is none.
        MissingExtraError: transformers is not installed.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        try:
            from transformers.utils import chat_template_utils
        except ImportError:
            raise MissingExtraError("transformers", "hub") from None
        self.name = str(folder) if name is None else name
        # It says that it returns a string.
        self._render: Any = chat_template_utils.render_jinja_template
        self.source = _source(folder)
        self.marks_replies = _MARKED.search(self.source) is not None
        self._names = special_tokens(folder, read_object(folder / DEFINITION))

    def whole(self, messages: Messages) -> str:
        """A chat that is over, as text. Raises DataError as `prompt`."""
        return self._written(messages)[0]

    def prompt(self, messages: Messages) -> str:
        """A chat as text, behind which the assistant's next reply is to begin.

        Raises:
            DataError: the template does not compile, or refuses the chat.
        """
        return self._written(messages, add_generation_prompt=True)[0]

    def begun(self, messages: Messages) -> str:
        """A chat as text whose last message is the beginning of one, and goes on. Raises DataError
        as `prompt`."""
        return self._written(messages, continue_final_message=True)[0]

    def replies(self, messages: Messages) -> tuple[str, list[Span]]:
        """A chat that is over, as text, and where each reply of the assistant stands in it.

        Where the template does not mark them, a reply is what rendering the chat up to it has
        beyond rendering the chat before it, ready for a reply.

        Raises:
            DataError: as `prompt`, and where that way finds no reply, as what comes later changes
                how the template writes what was before.
        """
        if self.marks_replies:
            text, spans = self._written(messages, return_assistant_tokens_mask=True)
            return text, [(start, end) for start, end in spans]
        text, found = self.whole(messages), []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.prompt(messages[:number])
            is_last = number == len(messages) - 1
            through = text if is_last else self.whole(messages[: number + 1])
            if not (through.startswith(before) and text.startswith(through)):
                raise DataError(
                    f"{self.name}: its chat template writes what was said before otherwise once "
                    f"message {number + 1} is there, so the reply cannot be found; put the replies "
                    f"between {{% generation %}} and {{% endgeneration %}} there"
                )
            found.append((len(before), len(through)))
        return text, found

    def needs(self, name: str, messages: Messages) -> bool:
        """Whether it writes the token called `name`, as `eos_token`, into a chat that is over."""
        probe = "\N{REPLACEMENT CHARACTER}"
        return probe in self._written(messages, **{name: probe})[0]

    def _written(self, messages: Messages, **more: Any) -> tuple[str, list[Span]]:
        settings = {"chat_template": self.source, **self._names, **more}
        try:
            (text,), spans = self._render([[dict(message) for message in messages]], **settings)
        except Exception as error:  # a template is a program, and fails in any way
            raise DataError(
                f"{self.name}: its chat template cannot be applied ({error}); mend it"
            ) from error
        return str(text), spans[0] if spans else []


def find_template(folder: Path) -> str | None:
    """The template in a tokenizer's folder, if there is one."""
    file = folder / TEMPLATE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    told = read_object(folder / SETTINGS).get("chat_template")
    if isinstance(told, list):  # several, as older folders have them
        told = {each.get("name"): each.get("template") for each in told}.get(_DEFAULT)
    return told if isinstance(told, str) else None


def for_engines(source: str) -> str:
    """A template that writes the same without marking replies, which not every engine can read."""
    opened = _MARKED.sub(r"{%\1 if true \2%}", source)
    return _MARKED_END.sub(r"{%\1 endif \2%}", opened)


def _source(folder: Path) -> str:
    template = find_template(folder)
    if template is None:
        raise DataError(
            f"{folder}: no chat template there; put the model's as {TEMPLATE} into the folder, "
            "tune it on conversations with teleflm sft, or ask without one"
        )
    return template

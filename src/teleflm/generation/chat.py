"""A chat: what was said so far, within the model's context, and the next answer."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from teleflm.data.conversation import Conversations
from teleflm.errors import DataError
from teleflm.generation.text import Completion, Writer


class Chat:
    """Turns of a user and a model, written by the model's own template.

    Args:
        writer: the model.
        folder: of its tokenizer and template.
        system: what the chat begins with, if anything.
        max_new_tokens: of an answer. Less is left for the turns before it.

    Raises:
        DataError: there is no template, or it cannot write a chat.
        MissingExtraError: transformers, which renders templates, is not installed.
    """

    def __init__(
        self, writer: Writer, folder: Path, system: str | None, max_new_tokens: int
    ) -> None:
        self._writer, self._max_new_tokens = writer, max_new_tokens
        self._talk = Conversations(folder, writer.tokenizer)
        self._first = [] if system is None else [{"role": "system", "content": system}]
        self._turns: list[dict[str, str]] = []
        self._asked = 0  # so that no answer is drawn as the one before
        self._prompt([{"role": "user", "content": ""}])  # a template that fails does so now

    def reset(self) -> None:
        """Forget all turns."""
        self._turns = []

    def ask(self, text: str, show: Callable[[str], object]) -> tuple[Completion | None, int]:
        """The answer to `text`, which `show` is given as it is written.

        Interrupted, what was written until then is the answer.

        Returns:
            The answer, None of one that was interrupted; and how many of the oldest exchanges are
            forgotten from now on, as the context holds no more.

        Raises:
            DataError: `text` alone is too long.
        """
        turns = [*self._turns, {"role": "user", "content": text}]
        ids, forgotten = self._prompt(turns), 0
        room = self._writer.decoder.config.max_position_embeddings
        while len(ids) + min(self._max_new_tokens, room // 2) > room and len(turns) > 1:
            turns, forgotten = turns[2:], forgotten + 1
            ids = self._prompt(turns)
        if len(ids) >= room:
            raise DataError(
                f"this has {len(ids):,} tokens with the chat's marks and the model's context "
                f"{room:,}; say it in fewer words"
            )
        written: list[str] = []
        completion: Completion | None = None

        def tell(_: int, piece: str) -> None:
            written.append(piece)
            show(piece)

        with suppress(KeyboardInterrupt):
            (completion,) = self._writer.write(
                [ids], self._max_new_tokens, first_row=self._asked, show=tell
            )
        self._asked += 1
        self._turns = [*turns, {"role": "assistant", "content": "".join(written)}]
        return completion, forgotten

    def _prompt(self, turns: list[dict[str, str]]) -> list[int]:
        return self._talk.prompt([*self._first, *turns])

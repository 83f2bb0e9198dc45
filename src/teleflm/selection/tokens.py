"""Conversations and texts as the tokens that a model reads when they are measured."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from teleflm.data.chat_template import find_template
from teleflm.data.conversation import Conversations
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError
from teleflm.selection.samples import Sample

Ids = npt.NDArray[np.int64]


class Written(NamedTuple):
    """A sample of n tokens.

    Attributes:
        ids: its tokens, (n,).
        counted: which of them a model is to learn, the replies' or all of a text, bool (n,).
        bytes: UTF-8 bytes of what is counted, one for the end of each reply among them.
    """

    ids: Ids
    counted: npt.NDArray[np.bool_]
    bytes: int


class Writing:
    """Writes samples as a model's tokens.

    A conversation is written by the template beside the tokenizer. Where there is none, a model has
    seen no chat yet: the contents follow each other, each on lines of its own, and who speaks is
    left out.

    Args:
        folder: the tokenizer's.

    Attributes:
        start: what every text begins behind: what the tokenizer puts before it, or the end of the
            text before.

    Raises:
        DataError: a damaged tokenizer, or one that has no such token.
        MissingExtraError: there is a template, and transformers is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.load(folder)
        self.start = self._tokenizer.encode_prompt("")
        has_template = find_template(folder) is not None
        self._template = Conversations(folder, self._tokenizer) if has_template else None

    def __call__(self, sample: Sample) -> Written:
        """The tokens of a sample, without `start`. Raises DataError, with its place, for what the
        template refuses."""
        replies = [m["content"] for m in sample.messages if m["role"] == "assistant"]
        size = sum(len(reply.encode()) + 1 for reply in replies or [sample.text])
        ids: list[int]
        counted: list[bool]
        if sample.messages and self._template is not None:
            try:
                ids, counted, *_ = self._template.encode(sample.messages)
            except DataError as error:
                raise DataError(f"{sample.where}: {error}") from error
        else:
            ids, counted = self._plain(sample)
        return Written(np.array(ids, np.int64), np.array(counted), size)

    def _plain(self, sample: Sample) -> tuple[list[int], list[bool]]:
        pieces = [(f"{m['content']}\n", m["role"] == "assistant") for m in sample.messages]
        if pieces:
            pieces[-1] = (sample.messages[-1]["content"], True)
        ids: list[int] = []
        counted: list[bool] = []
        for text, is_reply in pieces or [(sample.text, True)]:
            encode = self._tokenizer.encode_inside if ids else self._tokenizer.encode
            new = encode(text)
            ids += new
            counted += [is_reply] * len(new)
        end = [] if self._tokenizer.eos_id is None else [self._tokenizer.eos_id]
        return [*ids, *end], [*counted, *(True for _ in end)]

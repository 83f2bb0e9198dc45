"""Our model as lm-eval asks for it: log-likelihoods and text of its requests.

lm-eval is of the extra `eval`: import this module where that is known to be there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from teleflm.data.conversation import Conversations
from teleflm.data.progress import item_progress
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import ConfigError, DataError
from teleflm.evaluation.scorer import Scorer
from teleflm.evaluation.text import IntArray, Piece
from teleflm.evaluation.windows import Rolling
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.sampling import GREEDY, Sampling
from teleflm.generation.text import Writer
from teleflm.model.precision import autocast
from teleflm.parallel.ranks import Ranks

# lm-eval's request with its texts, and the ids of context and continuation.
_Request = tuple[tuple[str, str], list[int], list[int]]
_Answer = TypeVar("_Answer")
_TEXTS_AT_ONCE = 16
# Of what a task says of its texts, that which chooses no token.
_NO_DRAWS = ("until", "do_sample", "max_gen_toks")


class HarnessModel(TemplateLM):
    """A model for lm-eval's `evaluate`.

    For lm-eval each rank is alone: it makes all requests and gets all answers, and here the work is
    shared. Where lm-eval deals out the documents itself, by its own rank and world_size, each rank
    draws the examples that are shown from its own sequence of random numbers, and they are others
    than those of one rank.

    Args:
        scorer: the model.
        tokenizer: its own.
        talk: what writes chats, where contexts are written as such.
    """

    def __init__(
        self, scorer: Scorer, tokenizer: Tokenizer, talk: Conversations | None = None
    ) -> None:
        super().__init__()
        self._scorer, self._tokenizer, self._talk = scorer, tokenizer, talk
        self._ranks = Ranks()
        # What HFLM calls the prefix: an empty text's beginning.
        self._prefix = tokenizer.encode_prompt("")[-1]

    @property
    def eot_token_id(self) -> int:
        return self._prefix if self._tokenizer.eos_id is None else self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        return self._tokenizer.fingerprint

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text as it stands at the beginning of a document, or without what is put
        before one; of a chat as its template writes it."""
        if self._talk is not None:
            return self._talk.ids(string)
        return self._text_ids(string, opens=add_special_tokens is not False)

    def _text_ids(self, text: str, opens: bool = True) -> list[int]:
        ids = self._tokenizer.encode(text)
        return [*self._tokenizer.opening, *ids] if opens else ids

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        # What a chat's context has for marks, an answer has not.
        answer = continuation if self._talk is None else self._talk.hidden(continuation)
        return super()._encode_pair(context, answer)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        assert self._talk is not None, "lm-eval asks for chats where it is told to"
        return self._talk.prompt_text(chat_history, add_generation_prompt)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        for request in requests:
            if not request.args[1]:
                raise DataError(f"{_of(request)}: an answer is empty, so nothing can be scored")
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[_Request], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Σ log p of each continuation behind its context, and whether greedy text would be it."""
        length = self._scorer.length
        rows, counts = [], []
        for (_, continuation), before, after in requests:
            if not after:
                raise DataError(f"answer {continuation!r} has no token of its own")
            if len(after) > length:
                raise DataError(
                    f"answer {continuation[:40]!r}… has {len(after):,} tokens, more than the "
                    f"{length:,} that the model reads at once"
                )
            # The newest tokens, where there are too many.
            rows.append(np.array([*before, *after][-length - 1 :], np.int64))
            counts.append(len(after))
        return self._scored(rows, counts)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        rows, counts, owners = [], [], []
        for number, request in enumerate(requests):
            ids = np.array(self._text_ids(request.args[0]), np.int64)  # lm-eval makes it no chat
            if not len(ids):
                continue  # nothing to predict, and nothing to be unlikely
            rolling = Rolling(self._scorer.length, self._prefix, end=None)
            for window in rolling.add(Piece("", ids, np.zeros(len(ids)))):
                rows.append(window.tokens)
                counts.append(len(window.tokens) - 1 - window.first)
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (total, _) in zip(owners, self._scored(rows, counts), strict=True):
            totals[owner] += total
        return totals

    def _scored(self, rows: Sequence[IntArray], counts: Sequence[int]) -> list[tuple[float, bool]]:
        """Of each row Σ log p of its last tokens, so many, and whether all are the likeliest."""
        scorer, mine = self._scorer, {}
        # The longest first, so that few are padded much, and memory is short at once or never.
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        batches = list(_batches(order, rows, scorer))[scorer.rank :: scorer.ranks]
        with self._progress("scoring", sum(map(len, batches))) as progress:
            for some in batches:
                scores = scorer.scores([rows[index] for index in some])
                for index, (nats, greedy) in zip(some, scores, strict=True):
                    last = slice(len(nats) - counts[index], None)
                    mine[index] = -float(nats[last].sum()), bool(greedy[last].all())
                progress(len(some))
        return self._of_all(mine)

    def _progress(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        return item_progress(title, total, "texts", shown=self._ranks.first)

    def _of_all(self, mine: dict[int, _Answer]) -> list[_Answer]:
        """The answers of all ranks in order, from this one's by their numbers."""
        parts = [mine]
        if self._scorer.ranks > 1:
            parts = self._ranks.gathered(lambda: mine)
        found = {index: answer for part in parts for index, answer in part.items()}
        return [found[index] for index in range(len(found))]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        if not self._scorer.is_whole:
            raise ConfigError(
                f"{_of(requests[0])}: text is written by whole models; leave out --layout"
            )
        device = self._scorer.engine.device
        with autocast(device, self._scorer.precision):
            decoder = IncrementalDecoder(self._scorer.network)
        mine: dict[int, str] = {}
        share = range(self._scorer.rank, len(requests), self._scorer.ranks)
        with self._progress("writing", len(share)) as progress:
            for alike in _by_settings(requests, share):
                texts = self._write(decoder, [requests[index] for index in alike], progress)
                mine |= zip(alike, texts, strict=True)
        return self._of_all(mine)

    def _write(
        self,
        decoder: IncrementalDecoder,
        requests: Sequence[Instance],
        progress: Callable[[int], None],
    ) -> list[str]:
        """What follows the contexts of requests of the same settings."""
        settings = normalize_gen_kwargs(requests[0].args[1])
        length, most = self._scorer.length, settings["max_gen_toks"]
        if most >= length:
            raise DataError(
                f"{_of(requests[0])}: asks for up to {most:,} new tokens, and the model's context "
                f"is {length:,}"
            )
        stops = [stop for stop in settings["until"] if stop]
        prompts = [
            self.tok_encode(request.args[0])[most - length :] or [self._prefix]
            for request in requests
        ]
        sampling = _sampling(requests[0], settings)
        writer = Writer(decoder, self._tokenizer, sampling, stops)
        written = writer.write(
            prompts, most, batch_size=_TEXTS_AT_ONCE, finished=lambda *_: progress(1)
        )
        return [completion.text for completion in written]


def _sampling(request: Instance, settings: Mapping[str, Any]) -> Sampling:
    """How a task asks that tokens be drawn.

    Raises DataError for what text is not written by here: other text would be another score.
    """
    asked = {key: value for key, value in settings.items() if key not in _NO_DRAWS}
    if asked.get("num_beams") == 1:
        del asked["num_beams"]  # one beam is a plain text
    unknown = next((key for key in asked if key not in asdict(GREEDY)), None)
    if unknown is not None:
        raise DataError(
            f"{_of(request)}: its generation_kwargs ask for {unknown} = {asked[unknown]!r}, by "
            "which no text is written here; take it out of the task file"
        )
    if not settings["do_sample"]:
        asked = {key: value for key, value in asked.items() if key == "repetition_penalty"}
    try:
        return Sampling(**{**asked, "top_k": asked.get("top_k") or None})
    except ConfigError as error:
        raise DataError(f"{_of(request)}: its generation_kwargs make no sense ({error})") from error


def _of(request: Instance) -> str:
    return f"task {request.task_name}, document {request.doc_id}"


def _batches(
    order: Sequence[int], rows: Sequence[IntArray], scorer: Scorer
) -> Iterator[Sequence[int]]:
    """Rows by their numbers, the longest first, as many as are scored at once."""
    start = 0
    while start < len(order):
        some = order[start : start + scorer.rows_of(len(rows[order[start]]) - 1)]
        yield some
        start += len(some)


def _by_settings(requests: Sequence[Instance], share: range) -> Iterable[list[int]]:
    """The numbers of requests that are written alike, of those of a share."""
    alike: dict[str, list[int]] = {}
    for index in share:
        alike.setdefault(repr(requests[index].args[1]), []).append(index)
    return alike.values()

"""Texts that go on from prompts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import ConfigError
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.generate import check_prompt, generate
from teleflm.generation.sampling import GREEDY, Sampling
from teleflm.generation.stream import TextStream

# Why a text ended: a token that ends one, a stop string, max_new_tokens, the model's context.
Finish = Literal["end", "stop", "length", "context"]
# Batches whose prompts are put in the order of their lengths.
_NEAR = 16


@dataclass(frozen=True)
class Completion:
    """What a model wrote behind a prompt.

    Attributes:
        text: without the prompt, the token that ended it, and the stop string.
        tokens: as they were chosen, with both.
    """

    text: str
    tokens: list[int]
    finish: Finish


def _unshown(place: int, text: str) -> None:
    pass


def _unfinished(place: int, completion: Completion) -> None:
    pass


class Writer:
    """A model and its tokenizer, which write texts.

    Args:
        stops: strings at which a text ends; they are no part of it.

    Raises ConfigError for a stop string that is empty.
    """

    def __init__(
        self,
        decoder: IncrementalDecoder,
        tokenizer: Tokenizer,
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
    ) -> None:
        if "" in stops:
            raise ConfigError("a stop string is empty, and would end each text at once")
        self.decoder, self.tokenizer = decoder, tokenizer
        self._sampling, self._stops = sampling, stops
        self._absent = tokenizer.absent_ids(decoder.config.vocab_size)

    def check(self, prompt: Sequence[int]) -> None:
        """Raises DataError for a prompt that the model cannot go on from."""
        model = self.decoder.config
        check_prompt(prompt, model.vocab_size, model.max_position_embeddings)

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        batch_size: int = 1,
        first_row: int = 0,
        show: Callable[[int, str], object] = _unshown,
        finished: Callable[[int, Completion], object] = _unfinished,
    ) -> list[Completion]:
        """What follows each prompt, given as tokens (see `Tokenizer.encode_prompt`).

        Args:
            batch_size: prompts that are written together, of those that are near each other the
                ones of about one length.
            first_row: the number of the first prompt, by which its draws differ from another's.
            show: called with a prompt's place and the text that has become certain.
            finished: called with a prompt's place and all of its text, once that is over.

        Raises:
            DataError: a prompt that the model cannot go on from; before anything is written.
        """
        for prompt in prompts:
            self.check(prompt)
        completions: dict[int, Completion] = {}
        for places in _batches([len(prompt) for prompt in prompts], batch_size):
            for place, completion in self._write(places, prompts, max_new_tokens, first_row, show):
                completions[place] = completion
                finished(place, completion)
        return [completions[place] for place in range(len(prompts))]

    def _write(
        self,
        places: Sequence[int],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        first_row: int,
        show: Callable[[int, str], object],
    ) -> list[tuple[int, Completion]]:
        streams = [TextStream(self.tokenizer, prompts[place], self._stops) for place in places]
        ends = self.tokenizer.end_ids

        def tell(row: int, token: int) -> None:
            if token not in ends:
                show(places[row], streams[row].push(token))

        written = generate(
            self.decoder,
            [prompts[place] for place in places],
            max_new_tokens,
            self._sampling,
            ends=ends,
            absent=self._absent,
            rows=[first_row + place for place in places],
            is_done=lambda row, new: streams[row].is_stopped,
            tell=tell,
        )
        done = []
        for place, stream, new in zip(places, streams, written, strict=True):
            show(place, stream.finish())
            finish = self._finish(stream, new, max_new_tokens)
            done.append((place, Completion(stream.text, new, finish)))
        return done

    def _finish(self, stream: TextStream, new: list[int], max_new_tokens: int) -> Finish:
        if stream.is_stopped:
            return "stop"
        if new and new[-1] in self.tokenizer.end_ids:
            return "end"
        return "length" if len(new) == max_new_tokens else "context"


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Places of prompts, in batches of about one length; not all the first are among the last."""
    for first in range(0, len(lengths), size * _NEAR):
        places = range(first, min(first + size * _NEAR, len(lengths)))
        ordered = sorted(places, key=lambda place: lengths[place])
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]

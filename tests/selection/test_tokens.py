"""Samples as tokens: by the template where there is one, else as plain text."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from teleflm.data.conversation import Conversations
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError
from teleflm.selection.samples import Sample
from teleflm.selection.tokens import Writing
from tests.data.chats import CHATML, chat_folder

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "那船?"},
    {"role": "assistant", "content": "Gone."},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "In the year 7."},
]
SAMPLE = Sample(TALK, "", "d", "x.jsonl, line 3", b"")


def test_without_a_template_it_is_plain_text(tokenizer_dir: Path, tokenizer: Tokenizer) -> None:
    writing = Writing(tokenizer_dir)
    ids, counted, size = writing(SAMPLE)
    text = "Be brief.\n那船?\nGone.\nWhen?\nIn the year 7."
    assert tokenizer.decode(ids[:-1].tolist()) == text
    assert ids[-1] == tokenizer.eos_id and writing.start == [tokenizer.eos_id]
    assert tokenizer.decode(ids[counted][:-1].tolist()) == "Gone.\nIn the year 7."
    assert size == len("Gone.\nIn the year 7.") + 1


def test_a_text_counts_whole(tokenizer_dir: Path, tokenizer: Tokenizer) -> None:
    ids, counted, size = Writing(tokenizer_dir)(Sample([], "那船 sailed", "d", "x", b""))
    assert ids.tolist() == [*tokenizer.encode("那船 sailed"), tokenizer.eos_id]
    assert counted.all() and size == len("那船 sailed".encode()) + 1


def test_a_template_writes_conversations_and_no_texts(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path, CHATML)
    tokenizer, writing = Tokenizer.load(folder), Writing(folder)
    ids, counted, _ = writing(SAMPLE)
    encoded = Conversations(folder, tokenizer).encode(TALK)
    assert (ids.tolist(), counted.tolist()) == (encoded.ids, encoded.counted)
    text = writing(Sample([], "Gone.", "d", "x", b""))
    np.testing.assert_array_equal(text.ids, [*tokenizer.encode("Gone."), tokenizer.eos_id])


def test_what_a_template_refuses_has_its_place(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path, "{{ raise_exception('no system text') }}")
    with pytest.raises(DataError, match=r"x\.jsonl, line 3: .*no system text"):
        Writing(folder)(SAMPLE)


def test_a_folder_without_a_tokenizer(tokenizer_dir: Path, tmp_path: Path) -> None:
    shutil.copy(tokenizer_dir / "tokenizer_config.json", tmp_path)
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file"):
        Writing(tmp_path)

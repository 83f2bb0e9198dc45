"""Near-duplicates, and replies that go round in circles."""

import pytest

from teleflm.selection.repeats import goes_round, near_duplicates

POEM = "The ship sailed past the old harbour in the grey morning and nobody saw it again"


def found(*texts: str) -> list[int]:
    return near_duplicates(texts, range(len(texts))).tolist()


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (POEM, True),
        (POEM.upper() + " !!", True),
        ("  " + POEM.replace(" ", "\n"), True),
        (f"Please: {POEM}", True),
        (POEM.replace("grey", "dark"), True),
        (POEM.replace("grey", "dark").replace("ship", "boat").replace("saw", "met"), False),
        ("In the grey morning nobody saw the old ship again; it sailed past the harbour", False),
        ("Another text about a lamp and a chair in the kitchen of the village school", False),
    ],
)
def test_pairs(other: str, same: bool) -> None:
    assert found(POEM, other) == [0, 0 if same else 1]


def test_tasks_of_one_form_are_no_duplicates() -> None:
    texts = [f"What is {i} plus {j}?\n{i} plus {j} is {i + j}." for i, j in [(3, 9), (41, 7)]]
    assert found(*texts) == [0, 1]


def test_texts_without_words_have_equal_ones_for_duplicates() -> None:
    assert found("?!", "…", " ?!\n", "", "… …") == [0, 1, 0, 3, 4]


def test_chinese() -> None:
    text = "那船在清晨过了旧港从此没有人再见过它大家都说它去了远方的海岛"
    assert found(text, text.replace("清晨", "黄昏"), f"请说：{text}") == [0, 0, 0]
    assert found(text, "桌子上有一只茶杯和两个苹果孩子们在花园里等着火车") == [0, 1]


def test_small_changes_are_no_chain() -> None:
    words = POEM.split()
    steps = [" ".join(["x"] * at + words[at:]) for at in range(0, len(words), 2)]
    chain = found(*steps)
    assert chain[:2] == [0, 0] and chain[-1] != 0
    assert all(chain[other] == other for other in chain)


def test_the_order_says_who_stays() -> None:
    assert near_duplicates([POEM, POEM + " ."], [1, 0]).tolist() == [1, 1]


def test_many_of_one_form_take_no_square_of_time() -> None:
    texts = [f"{POEM} number {number} of the list" for number in range(3000)]
    assert near_duplicates(texts, range(3000)).tolist() == [0] * 3000


@pytest.mark.parametrize(
    ("tokens", "round_"),
    [
        ([7, 8] * 10, True),
        ([7] * 16, True),
        ([7] * 15, False),  # too short to say
        (list(range(40)), False),
        ([*range(20), *range(19)], False),
        ([*range(15)] * 3, True),
        ([], False),
    ],
)
def test_goes_round(tokens: list[int], round_: bool) -> None:
    assert goes_round(tokens) == round_

"""Figures as words."""

import math

import pytest

from teleflm.report.words import (
    bound,
    count,
    duration,
    error,
    listing,
    percent,
    power,
    setting,
    times,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (999, "999"),
        (4_264_960, "4.26 M"),
        (999_999, "1 M"),
        (52.87e9, "52.9 B"),
    ],
)
def test_counts_have_three_digits(value: float | None, text: str) -> None:
    assert count(value).replace("\N{NO-BREAK SPACE}", " ") == text


def test_exponents_are_written_as_one_says_them() -> None:
    assert (bound(1e-12), bound(1e-5), error(8.6e-7), power(8.1e13)) == (
        "1e-12",
        "1e-5",
        "8.6e-7",
        "8.1e13",
    )


def test_an_error_is_never_prettier_than_it_is() -> None:
    assert [error(0.0), error(None), error(math.nan), error(math.inf)] == ["0", "–", "nan", "inf"]


def test_durations_and_the_rest() -> None:
    assert [duration(s) for s in (None, 48.4, 60, 680, 7500)] == [
        "–",
        "48 s",
        "1 min",
        "11 min 20 s",
        "2 h 5 min",
    ]
    assert (listing(["a", "b", "c"]), listing(["a"])) == ("a, b and c", "a")
    assert (times(2), times(3), percent(None)) == ("twice", "3 times", "–")


def test_a_width_is_a_whole_number_and_a_rate_is_not() -> None:
    assert setting(20480) == "20,480"
    assert setting(2.833e-06) == "2.833e-06" and setting(0.125) == "0.125"

"""`mask`: personal data that a pattern can tell, replaced by fixed words."""

import ipaddress
import re
from collections.abc import Callable
from datetime import date
from typing import ClassVar, Literal

from datatrove.data import Document

from teleflm.cleaning.step import Step
from teleflm.config.base import Strict

Kind = Literal["email", "ip", "phone", "id_number", "bank_card"]

REPLACEMENTS: dict[Kind, str] = {
    "email": "<EMAIL>",
    "ip": "<IP>",
    "phone": "<PHONE>",
    "id_number": "<ID_NUMBER>",
    "bank_card": "<BANK_CARD>",
}
"""What stands in the text instead."""

Check = Callable[[re.Match[str]], bool]

_EMAIL = re.compile(
    # Quantifiers are bounded and the parts begin after none of their characters, so that a long
    # run of letters is walked once.
    r"(?<![\w.+%-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])",
    re.ASCII,
)
# A digit comes first, and what is not to stand before it is looked at from there: a search then
# skips from digit to digit. 1.2.3.4 in v1.2.3.4 or in 1.2.3.4.5 is no address.
_IPV4 = re.compile(
    r"[0-9](?<![\w.-]\d)[0-9]{0,2}\.(?:[0-9]{1,3}\.){2}[0-9]{1,3}(?![\w-]|\.\d)", re.ASCII
)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])", re.ASCII)
_ID_NUMBER = re.compile(r"[1-9](?<![\w.-]\d)[0-9]{16}[0-9Xx](?![\w-]|\.\d)", re.ASCII)
# Groups of four and up to three digits more, as printed on a card, or one run. Issuers begin with 2
# to 6; 97 begins a book's number, 0 and 1 mostly other numbers.
_BANK_CARD = re.compile(
    r"[2-6](?<![\w.+-]\d)(?:[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?|[0-9]{15,18})"
    r"(?![\w-]|\.\d)",
    re.ASCII,
)
_INTERNATIONAL = re.compile(  # +49 30 1234567, +1 (555) 010-9999
    r"\+(?<![\w+]\+)[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,4}\)?){2,6}(?![\w-])", re.ASCII
)
_CHINESE_MOBILE = re.compile(
    r"1(?<![\w.+-]1)[3-9][0-9](?:[0-9]{8}|[ -][0-9]{4}[ -][0-9]{4})(?![\w-]|\.\d)", re.ASCII
)
_FEWEST_DIGITS, _MOST_DIGITS = 8, 15  # of an international number, by ITU E.164

# Four small numbers are more often a section or a version than an address.
_SMALL = 100
_ADDRESS_WORD = re.compile(r"\b(?:ip|ipv4|dns|address|host|server|ping)\b|地址|服务器|主机", re.I)
_VERSION_WORD = re.compile(r"(?:version|release|build|firmware|版本|版)\W{0,3}$", re.I)
_FEWEST_HEX_DIGITS = 8


class MaskSettings(Strict):
    """`kinds`: what is replaced."""

    kinds: tuple[Kind, ...] = tuple(REPLACEMENTS)


class Mask(Step):
    """Replaces e-mail addresses, public IP addresses, phone numbers (international ones that begin
    with +, Chinese mobile ones), Chinese identity numbers and bank cards whose check digits are
    right. Everything else stays: versions, dates, ISBNs, private addresses, other long numbers.

    It drops nothing; `details` count what was replaced.
    """

    name: ClassVar[str] = "mask"
    Settings: ClassVar[type[Strict]] = MaskSettings

    def __init__(self, settings: MaskSettings) -> None:
        super().__init__(settings)
        self._order = [row for row in _ORDER if row[0] in settings.kinds]

    def __call__(self, document: Document) -> str | None:
        """As `Step.__call__`; changes the text."""
        for kind, hint, pattern, check in self._order:
            if hint.search(document.text):
                document.text = self._masked(document.text, kind, pattern, check)
        return None

    def _masked(self, text: str, kind: Kind, pattern: re.Pattern[str], check: Check) -> str:
        def replace(match: re.Match[str]) -> str:
            if not check(match):
                return match[0]
            self.details[kind] += 1
            return REPLACEMENTS[kind]

        return pattern.sub(replace, text)


def _is_public(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if address.version == 6:
        # Less is a slice, a time, a name in a namespace.
        likely = sum(map(str.isalnum, match[0])) >= _FEWEST_HEX_DIGITS
    else:
        parts = match[0].split(".")
        before = match.string[max(match.start() - 24, 0) : match.start()]
        likely = not _VERSION_WORD.search(before) and (
            sum(map(int, parts)) >= _SMALL
            or len(set(parts)) == 1
            or _ADDRESS_WORD.search(before) is not None
        )
    return likely and address.is_global and not address.is_multicast


def _is_id_number(match: re.Match[str]) -> bool:
    """Province, birthday and check digit, by GB 11643-1999."""
    text = match[0]
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(w * int(digit) for w, digit in zip(weights, text, strict=False))
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    return (
        "11" <= text[:2] <= "91"
        and born.year >= 1850
        and "10X98765432"[total % 11] == text[17].upper()
    )


def _is_card(match: re.Match[str]) -> bool:
    """Luhn's check digit, ISO/IEC 7812-1."""
    digits = [int(digit) for digit in match[0] if digit.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[::-2])) % 10 == 0 and len(set(digits)) > 1


def _is_phone(match: re.Match[str]) -> bool:
    return _FEWEST_DIGITS <= sum(map(str.isdigit, match[0])) <= _MOST_DIGITS


def _always(match: re.Match[str]) -> bool:
    return True


_LONG_NUMBER = re.compile("[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}")
_ORDER: list[tuple[Kind, re.Pattern[str], re.Pattern[str], Check]] = [
    ("email", re.compile("@"), _EMAIL, _always),
    ("id_number", _LONG_NUMBER, _ID_NUMBER, _is_id_number),
    ("bank_card", _LONG_NUMBER, _BANK_CARD, _is_card),
    ("phone", re.compile(r"\+[1-9]"), _INTERNATIONAL, _is_phone),
    ("phone", re.compile("1[3-9][0-9]"), _CHINESE_MOBILE, _always),
    ("ip", re.compile(r"[0-9]\.[0-9]"), _IPV4, _is_public),
    ("ip", re.compile(":[0-9a-fA-F]{0,4}:"), _IPV6, _is_public),
]
"""In the order of work: the kind, what a text holds where it is worth a search, the pattern, and
the check."""

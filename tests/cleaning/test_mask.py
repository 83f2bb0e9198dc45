"""Personal data goes, and numbers that look like it stay."""

import pytest
from datatrove.data import Document

from teleflm.cleaning.mask import Mask, MaskSettings


def masked(text: str, **settings: object) -> str:
    document = Document(text=text, id="1", metadata={"language": "en"})
    assert Mask(MaskSettings.model_validate(settings))(document) is None
    return document.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+x@mail.example.co.uk.", "write to <EMAIL>."),
        ("邮箱：wang_1@qq.com，谢谢", "邮箱：<EMAIL>，谢谢"),
        ("ping 8.8.8.8 now", "ping <IP> now"),
        ("from 123.45.67.89:8080", "from <IP>:8080"),
        ("DNS 服务器地址 9.12.3.4。", "DNS 服务器地址 <IP>。"),
        ("at 2001:4860:4860::8888, said", "at <IP>, said"),
        ("电话13812345678（微信同号）", "电话<PHONE>（微信同号）"),
        ("call 138 1234 5678 or 138-1234-5678", "call <PHONE> or <PHONE>"),
        ("+86 138 1234 5678", "<PHONE>"),
        ("+1 (555) 010-9999, +49 30 1234567", "<PHONE>, <PHONE>"),
        ("身份证号11010519491231002X。", "身份证号<ID_NUMBER>。"),
        ("4111 1111 1111 1111 and 6222020000000000000", "<BANK_CARD> and <BANK_CARD>"),
    ],
)
def test_what_goes(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4, v10.20.30.40, Chrome 115.0.5790.170, build 192.0.20.44",
        "12.1.1.2 RAID levels; see Section 11.1.7.2",
        "版本 8.8.8.8 发布",
        "ISBN 978-3-16-148410-0, 9783161484100, 7-5327-1234-5",
        "2024-11-28, 20241128, 28.11.2024 18:45:12, 2024-11-28T18:45:12.123456",
        "192.168.1.1 10.0.0.7 127.0.0.1 255.255.255.0 224.0.0.1 fe80::1 ::1 std::vector a[1::2]",
        "MAC 00:1a:2b:3c:4d:5e at 12:30:45",
        "pi is 3.14159265358979323846, 1381234567890, 12345678901",
        "11010519491231002A 110105194912310021 110105194913310021 4111111111111112",
        "0000000000000000 user@localhost @decorator a@b",
        "1+2+3, +5 to +10, C++11, 10+1000+1000",
        "sha1 4111111111111111abcdef, order-4111111111111111",
    ],
)
def test_what_stays(text: str) -> None:
    assert masked(text) == text


def test_only_what_is_asked() -> None:
    assert masked("a@b.example 13812345678", kinds=("phone",)) == "a@b.example <PHONE>"


def test_it_counts() -> None:
    step = Mask(MaskSettings())
    step(Document(text="a@b.example c@d.example 13812345678", id="1"))
    assert step.details == {"email": 2, "phone": 1}


def test_a_long_run_takes_no_longer_by_its_square() -> None:
    for text in (
        "a" * 200_000 + "@",
        "1." * 100_000,
        "1" * 200_000,
        "a:" * 100_000,
        "+1" * 100_000,
    ):
        masked(text)

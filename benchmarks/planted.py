"""What the shipped recipes web-en and web-zh, all steps together, drop of what is planted in real
text, and of that text itself; and whether 1, 2 and 7 workers give the same.

    python benchmarks/planted.py en=bible.jsonl.zst zh=handbook-zh.jsonl.zst zh=poetry.jsonl.zst

Each argument is LANGUAGE=FILE of clean text. A third of the texts is the clean source, a third is
what other things are planted in, and the rest is where test items come from. Similarities are
exact, on the recipe's own shingles.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import zstandard

sys.path.insert(0, str(Path(__file__).parents[1]))

from teleflm.cleaning.units import ngram_hashes, unit_hashes
from teleflm.data.find import find_corpus
from teleflm.data.sources import iterate_documents
from tests.cleaning.bad_text import planted as bad_texts

_SHARES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
_BINS = (0.0, 0.6, 0.7, 0.8, 0.9, 1.01)
_NGRAM = 5
_LEAST = {"en": 13, "zh": 20}
_UNIT = {"en": re.compile(r"[^\W\d_]+"), "zh": re.compile(r"[\u4e00-\u9fff]")}

Texts = dict[str, str]
"""By id, which begins with the kind."""


def shingles(text: str) -> set[int]:
    """Those of the step `minhash`."""
    hashes, starts = unit_hashes([text])
    return set(ngram_hashes(hashes, starts, _NGRAM)[0].tolist())


def similarity(one: str, other: str) -> float:
    """Jaccard's."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def changed(text: str, language: str, share: float, draw: random.Random) -> str:
    """`text` with that share of its words, or characters, replaced by others of it."""
    units = list(_UNIT[language].finditer(text))
    out, end = [], 0
    for place in sorted(draw.sample(range(len(units)), max(1, round(share * len(units))))):
        out += [text[end : units[place].start()], draw.choice(units).group()]
        end = units[place].end()
    return "".join([*out, text[end:]])


def item(text: str, language: str, draw: random.Random) -> str | None:
    """A test item out of `text`, of the least length that must be found or up to twice that."""
    units = list(_UNIT[language].finditer(text))
    length = draw.randint(_LEAST[language], 2 * _LEAST[language])
    if len(units) < 2 * length:
        return None
    first = draw.randrange(len(units) - length)
    return text[units[first].start() : units[first + length - 1].end()]


def inside(host: str, text: str, draw: random.Random) -> str:
    """`host` with `text` between two of its lines."""
    lines = host.split("\n")
    place = draw.randrange(len(lines) + 1)
    return "\n".join([*lines[:place], "", text, "", *lines[place:]])


def plant(
    language: str, pools: dict[str, list[str]], most: int, draw: random.Random
) -> tuple[Texts, Texts, list[str]]:
    """The clean texts, the planted ones, and the test items."""
    pool = [text for text in pools[language] if len(_UNIT[language].findall(text)) >= 60]
    third = min(most, len(pool) // 3)
    bases, hosts, rest = pool[:third], pool[third : 2 * third], pool[2 * third :]
    clean = {f"clean/{n}": text for n, text in enumerate(bases)}
    made: Texts = {f"host/{n}": text for n, text in enumerate(hosts[: third // 3])}
    for n, text in enumerate(bases):
        for share in _SHARES:
            made[f"near {share:.0%}/{n}"] = changed(text, language, share, draw)
        cut = text.rfind("\n", 0, len(text) // 2) + 1 or len(text) // 2
        made[f"moved/{n}"] = text[cut:] + "\n" + text[:cut]
    items: list[str] = []
    for n, host in enumerate(hosts[third // 3 : 2 * third // 3]):
        if (found := item(draw.choice(rest), language, draw)) is not None:
            items.append(found)
            made[f"test item/{n}"] = inside(host, found, draw)
    for n, host in enumerate(hosts[2 * third // 3 :]):
        paragraph = max(re.split(r"\n\s*\n", bases[n]), key=len)
        made[f"paragraph/{n}"] = inside(host, paragraph, draw)
    other = {"en": "zh", "zh": "en"}[language]
    for n, text in enumerate(pools[other][:50]):
        made[f"other language/{n}"] = text
        made[f"half and half/{n}"] = f"{text[:600]}\n\n{hosts[n % len(hosts)][:600]}"
    for half in ("seen", "unseen"):
        for n, text in enumerate(bad_texts(language, half)):
            made[f"spam, boilerplate {half}/{n}"] = text
    return clean, made, items


def run(folder: Path, language: str, out: str, *more: str) -> None:
    """Do the shipped recipe."""
    recipe = {
        "recipe": f"web-{language}",
        "out": str(folder / out),
        "sources": [
            {"name": name, "path": str(folder / f"{name}.jsonl"), "language": language}
            for name in ("clean", "planted")
        ],
        "test_sets": [str(folder / "items.jsonl")],
        "settings": {"decontaminate": True},
    }
    (path := folder / "recipe.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "teleflm", "data", "clean", str(path), *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Records by id."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            found |= {record["id"]: record for record in map(json.loads, file)}
    return found


def verdicts(out: Path) -> dict[str, str]:
    """The step and the reason of each document that was dropped."""
    return {
        identity: f"{folder.name}: {record['reason']}"
        for folder in sorted((out / "dropped").iterdir())
        for identity, record in read(folder).items()
    }


def kinds(out: Path, texts: Texts) -> None:
    """Print what was dropped of each kind and why, and what is left of the bytes of the rest."""
    dropped, kept = verdicts(out), read(out / "text")
    groups: dict[str, list[str]] = defaultdict(list)
    for identity in texts:
        groups[identity.partition("/")[0]].append(identity)
    for kind, ids in groups.items():
        why = Counter(dropped[identity] for identity in ids if identity in dropped)
        stays = [identity for identity in ids if identity in kept]
        before = sum(len(texts[identity].encode()) for identity in stays)
        after = sum(len(kept[identity]["text"].encode()) for identity in stays)
        left = f"{100 * after / before:5.1f} %" if before else "      –"
        print(
            f"  {kind:26}{sum(why.values()):5} of {len(ids):5} dropped, "
            f"{100 * sum(why.values()) / len(ids):6.2f} %; of the rest {left} of bytes stay  "
            f"{dict(why.most_common(4))}"
        )


def near(out: Path, clean: Texts, made: Texts) -> None:
    """Print how many near-duplicates were dropped, by similarity to what they were made from."""
    dropped = verdicts(out)
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for identity, text in made.items():
        kind, _, number = identity.partition("/")
        base = f"clean/{number}"
        if not kind.startswith(("near", "moved")) or base in dropped:
            continue
        similar = similarity(text, clean[base])
        bin = max(n for n, least in enumerate(_BINS) if similar >= least)
        counts[bin][0] += 1
        counts[bin][1] += identity in dropped
    for bin, (all_, gone) in sorted(counts.items()):
        print(
            f"  Jaccard {_BINS[bin]:.1f} to {min(1, _BINS[bin + 1]):.1f}: "
            f"{gone} of {all_} dropped, {100 * gone / all_:.2f} %"
        )


def wrongly_contaminated(out: Path, language: str, texts: Texts, items: list[str]) -> int:
    """Documents dropped for a test item of which they have no run of the least length."""
    least, wrong = _LEAST[language], 0
    runs = set()
    for one in items:
        units = [unit.lower() for unit in _UNIT[language].findall(one)]
        runs |= {"".join(units[n : n + least]) for n in range(len(units) - least + 1)}
    for identity, reason in verdicts(out).items():
        if reason.startswith("decontaminate"):
            letters = "".join(_UNIT[language].findall(texts[identity])).lower()
            wrong += not any(run in letters for run in runs)
    return wrong


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("sources", nargs="+", metavar="LANGUAGE=FILE")
    parser.add_argument("--most", type=int, default=300, help="clean texts of a language")
    parser.add_argument("--workers", type=int, nargs="*", default=[2, 7], help="beside one")
    arguments = parser.parse_args()
    pools: dict[str, list[str]] = defaultdict(list)
    for source in arguments.sources:
        language, _, path = source.partition("=")
        texts = [d.text for d in iterate_documents(find_corpus([Path(path)]))]
        # A translation that is not done yet is in another language.
        pools[language] += [text for text in texts if _is_chinese(text) == (language == "zh")]
    draw = random.Random(0)
    for texts in pools.values():
        draw.shuffle(texts)
    for language in pools:
        clean, made, items = plant(language, pools, arguments.most, draw)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, its in (("clean", clean), ("planted", made)):
                records = [{"text": text, "id": identity} for identity, text in its.items()]
                _write(folder / f"{file}.jsonl", records)
            _write(folder / "items.jsonl", [{"question": one} for one in items])
            run(folder, language, "1", "executor.workers=1")
            print(f"web-{language}, {len(clean)} clean and {len(made)} planted documents")
            kinds(folder / "1", clean | made)
            near(folder / "1", clean, made)
            wrong = wrongly_contaminated(folder / "1", language, clean | made, items)
            print(f"  dropped for a test item without one: {wrong}")
            for workers in arguments.workers:
                run(folder, language, str(workers), f"executor.workers={workers}")
                same = _files(folder / str(workers)) == _files(folder / "1")
                print(f"  {workers} workers: {'the same' if same else 'ANOTHER RESULT'}")


def _is_chinese(text: str) -> bool:
    return 2 * len(_UNIT["zh"].findall(text)) > len(_UNIT["en"].findall(text))


def _write(path: Path, records: list[dict[str, str]]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.zst")}


if __name__ == "__main__":
    main()

"""Made-up conversations of many kinds, some frequent and some rare, each with a rule that answers
it; and what a crawled set has beside them: copies, and noise of several sorts."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

Ask = Callable[[random.Random], tuple[str, str]]


def _words(text: str) -> list[str]:
    return text.split()


_NAMES = _words(
    "Ada Ben Cleo Dan Eva Finn Gus Hana Ivan June Karl Lena Milo Nora Otto Pia Rosa Sven Tara Uma"
)
_THINGS = _words(
    "apple boat chair drum egg fence glove horse island jacket kettle lamp mirror needle orange "
    "pencil quilt river spoon table umbrella violin window yard zebra basket candle door engine "
    "feather garden hammer letter mountain ocean pillow ribbon saddle tower village"
)
_PLACES = _words("kitchen garden harbour library market school station tower valley village")
_DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_FRENCH = _words("un deux trois quatre cinq six sept huit neuf dix")
_GERMAN = {
    "red": "rot", "blue": "blau", "green": "grün", "white": "weiß", "black": "schwarz",
    "yellow": "gelb", "brown": "braun", "grey": "grau", "pink": "rosa", "purple": "lila",
}  # fmt: skip
_HAN = "一二三四五六七八九"
_HAN_THINGS = _words("苹果 小船 椅子 雨伞 窗户 花园 火车 月亮 茶杯 桌子 老虎 小河")
_ROMAN = _words("I II III IV V VI VII VIII IX X XI XII")


def _numbers(r: random.Random, most: int = 50) -> tuple[int, int]:
    return r.randint(2, most), r.randint(2, most)


def _sum(r: random.Random) -> tuple[str, str]:
    a, b = _numbers(r)
    return f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."


def _larger(r: random.Random) -> tuple[str, str]:
    a, b = _numbers(r, 900)
    return f"Which number is larger, {a} or {b}?", f"The larger number is {max(a, b)}."


def _reverse(r: random.Random) -> tuple[str, str]:
    words = r.sample(_THINGS, 3)
    return f"Reverse this list: {', '.join(words)}", ", ".join(reversed(words))


def _spell(r: random.Random) -> tuple[str, str]:
    word = r.choice(_THINGS)
    return f"{r.choice(_NAMES)} asks how one spells {word}.", "-".join(word.upper())


def _has(r: random.Random) -> tuple[str, str]:
    (one, other), (thing, second) = r.sample(_NAMES, 2), r.sample(_THINGS, 2)
    return (
        f"{one} has the {thing} and {other} has the {second}. Who has the {second}?",
        f"{other} has the {second}.",
    )


def _where(r: random.Random) -> tuple[str, str]:
    name, place, thing = r.choice(_NAMES), r.choice(_PLACES), r.choice(_THINGS)
    return (
        f"{name} took the {thing} and went to the {place}. Where is the {thing} now?",
        f"The {thing} is in the {place}.",
    )


def _greet(r: random.Random) -> tuple[str, str]:
    name, place = r.choice(_NAMES), r.choice(_PLACES)
    return (
        f"Write a short greeting to {name} from the {place}.",
        f"Dear {name}, warm greetings from the {place}!",
    )


def _bullets(r: random.Random) -> tuple[str, str]:
    words = r.sample(_THINGS, 3)
    listed = "\n".join(f"* {word}" for word in words)
    return f"Make bullet points of {words[0]}, {words[1]} and {words[2]}.", listed


def _json(r: random.Random) -> tuple[str, str]:
    name, age = r.choice(_NAMES), r.randint(5, 80)
    return f"As JSON: {name}, aged {age}", f'{{"name": "{name}", "age": {age}}}'


def _function(r: random.Random) -> tuple[str, str]:
    name, number = r.choice(_THINGS), r.randint(2, 99)
    return (
        f"Define a Python function {name} that adds {number} to its argument.",
        f"def {name}(x):\n    return x + {number}",
    )


def _chinese(r: random.Random) -> tuple[str, str]:
    one, other = r.sample(_HAN_THINGS, 2)
    return f"请用{one}和{other}写一句话。", f"我在{other}旁边看见了一个{one}。"


def _han_sum(r: random.Random) -> tuple[str, str]:
    a, b = r.randint(1, 5), r.randint(1, 4)
    thing = r.choice(_HAN_THINGS)
    said = f"{_HAN[a - 1]}个{thing}加{_HAN[b - 1]}个{thing}"
    return f"{said}是几个{thing}？", f"{said}是{_HAN[a + b - 1]}个{thing}。"


def _day(r: random.Random) -> tuple[str, str]:
    day, days, name = r.randrange(7), r.randint(1, 6), r.choice(_NAMES)
    return (
        f"{name} leaves on {_DAYS[day]} and returns {days} days later. On which day?",
        f"{name} returns on {_DAYS[(day + days) % 7]}.",
    )


def _link(r: random.Random) -> tuple[str, str]:
    one, other = r.sample(_THINGS, 2)
    return (
        f"HTML link to the page {one} with the text {other}",
        f'<a href="{one}.html">{other}</a>',
    )


def _query(r: random.Random) -> tuple[str, str]:
    table, column, number = r.choice(_PLACES), r.choice(_THINGS), r.randint(2, 99)
    return (
        f"SQL: all {column} columns of table {table} above {number}",
        f"SELECT {column} FROM {table} WHERE {column} > {number};",
    )


def _french(r: random.Random) -> tuple[str, str]:
    at, name = r.randrange(9), r.choice(_NAMES)
    return (
        f"Bonjour, je suis {name}. Quel nombre vient après {_FRENCH[at]} ?",
        f"Bonjour {name}, après {_FRENCH[at]} vient {_FRENCH[at + 1]}.",
    )


def _german(r: random.Random) -> tuple[str, str]:
    (one, first), (two, second) = r.sample(sorted(_GERMAN.items()), 2)
    return (
        f"Wie heißen die Farben {one} und {two} auf Deutsch?",
        f"Sie heißen {first} und {second}.",
    )


def _shout(r: random.Random) -> tuple[str, str]:
    words = " ".join(r.sample(_THINGS, 3))
    return f"In capital letters please: {words}", words.upper()


def _roman(r: random.Random) -> tuple[str, str]:
    chapter, thing = r.randrange(12), r.choice(_THINGS)
    return (
        f"Roman heading for chapter {chapter + 1} about the {thing}",
        f"Chapter {_ROMAN[chapter]}. Of the {thing}",
    )


def _rows(r: random.Random) -> tuple[str, str]:
    name, thing, number = r.choice(_NAMES), r.choice(_THINGS), r.randint(2, 99)
    return (
        f"One row of a table with pipes: {name} bought {number} of {thing}",
        f"| {name} | {thing} | {number} |",
    )


def _recipe(r: random.Random) -> tuple[str, str]:
    one, other = r.sample(_THINGS, 2)
    return (
        f"Give me two steps for cleaning the {one} and the {other}.",
        f"1. Wash the {one} with warm water.\n2. Dry the {other} with a soft cloth.",
    )


def _polite(r: random.Random) -> tuple[str, str]:
    name, thing = r.choice(_NAMES), r.choice(_THINGS)
    return (
        f"Say politely that {name} may not borrow the {thing}.",
        f"I am sorry, {name}, but I cannot lend you the {thing} today.",
    )


def _clock(r: random.Random) -> tuple[str, str]:
    hour, minutes = r.randint(1, 11), r.choice((10, 20, 30, 40, 50))
    return (
        f"The clock shows {hour}:00. What does it show {minutes} minutes later?",
        f"It shows {hour}:{minutes}.",
    )


def _assign(r: random.Random) -> tuple[str, str]:
    name, values = r.choice(_THINGS), [r.randint(1, 99) for _ in range(3)]
    return f"bash: loop that echoes {values}", f"for {name} in {values}; do echo ${name}; done"


KINDS: dict[str, Ask] = {
    "sum": _sum, "has": _has, "reverse": _reverse, "where": _where, "larger": _larger,
    "function": _function, "greeting": _greet, "chinese": _chinese, "bullets": _bullets,
    "spelling": _spell, "json": _json, "day": _day, "steps": _recipe, "link": _link,
    "capitals": _shout, "query": _query, "row": _rows, "polite": _polite, "roman": _roman,
    "han sum": _han_sum, "french": _french, "german": _german, "clock": _clock, "bash": _assign,
}  # fmt: skip
"""From the most frequent to the rarest."""


class Task(NamedTuple):
    """A conversation of one question and its answer.

    `kind` is one of `KINDS` or what is wrong with it; a copy has that of what it copies.
    """

    kind: str
    question: str
    answer: str
    copy: bool = False

    @property
    def noise(self) -> bool:
        """Whether nobody should learn from it."""
        return self.kind not in KINDS

    def record(self) -> dict[str, Any]:
        """As OpenAI's messages, with the kind beside them."""
        messages = [
            {"role": "user", "content": self.question},
            {"role": "assistant", "content": self.answer},
        ]
        return {"messages": messages, "kind": self.kind}


def tasks(number: int, seed: int, least: int = 4) -> list[Task]:
    """About so many different tasks, those of a kind in proportion to rank^-1.5, and at least
    `least` of each; in an order of chance."""
    r = random.Random(seed)
    scale = number / sum((rank + 1) ** -1.5 for rank in range(len(KINDS)))
    found: dict[tuple[str, str], Task] = {}
    for rank, (kind, ask) in enumerate(KINDS.items()):
        wanted, tries = max(least, round(scale * (rank + 1) ** -1.5)), 0
        have = len(found)
        while len(found) - have < wanted and tries < 20 * wanted:
            question, answer = ask(r)
            found[question, answer] = Task(kind, question, answer)
            tries += 1
    return r.sample(list(found.values()), len(found))


def _letters(r: random.Random, length: int) -> str:
    return "".join(r.choice("abcdefghijklmnopqrstuvwxyz      ") for _ in range(length))


def _noise(sort: str, some: list[Task], r: random.Random) -> Task:
    one = r.choice(some)
    question, answer = one.question, one.answer
    if sort == "letters":
        answer = _letters(r, r.randint(20, 80))
    elif sort == "gibberish":
        question, answer = _letters(r, r.randint(20, 60)), _letters(r, r.randint(20, 80))
    elif sort == "symbols":
        answer = "".join(r.choice("#@%&*~^|\\/<>{}[]$§+=0123456789") for _ in range(40))
    elif sort == "repeated":
        answer = " ".join([r.choice(_THINGS)] * r.randint(15, 40))
    elif sort == "shuffled":
        letters = list(answer)
        r.shuffle(letters)
        answer = "".join(letters)
    elif sort == "mismatched":
        answer = next(t.answer for t in r.sample(some, len(some)) if t.kind != one.kind)
    return Task(sort, question, answer)


NOISE = ("letters", "gibberish", "symbols", "repeated", "shuffled")
"""What a model's loss can tell; it cannot tell a fluent answer that is none to the question."""


def planted(
    number: int, seed: int, copies: float = 0.2, noise: float = 0.2, sorts: tuple[str, ...] = NOISE
) -> list[Task]:
    """`tasks`, and beside them shares of copies with small changes and of noise; shuffled."""
    good = tasks(number, seed)
    r = random.Random(seed + 1)
    copied = [_copied(task, r) for task in r.choices(good, k=round(copies * len(good)))]
    bad = [_noise(sorts[i % len(sorts)], good, r) for i in range(round(noise * len(good)))]
    everything = [*good, *copied, *bad]
    r.shuffle(everything)
    return everything


def _copied(task: Task, r: random.Random) -> Task:
    change = r.randrange(3)
    if change == 0:
        return task._replace(copy=True)
    if change == 1:
        return task._replace(question=f" {task.question}  ", answer=f"{task.answer}!", copy=True)
    return task._replace(question=f"Please: {task.question}", copy=True)

"""Conversations for a first try at instruction tuning: capitals, asked for in many ways.

    python examples/sft/capitals.py > capitals.jsonl

Prints 400 conversations of one or two questions, 20 countries by 30 ways to ask, each once: a model
that has seen three quarters of them can answer the others.
"""

import json
import random
import sys
from itertools import pairwise

CAPITALS = {
    "France": ("Paris", "法国", "巴黎"),
    "Japan": ("Tokyo", "日本", "东京"),
    "Egypt": ("Cairo", "埃及", "开罗"),
    "Peru": ("Lima", "秘鲁", "利马"),
    "Norway": ("Oslo", "挪威", "奥斯陆"),
    "Kenya": ("Nairobi", "肯尼亚", "内罗毕"),
    "Cuba": ("Havana", "古巴", "哈瓦那"),
    "Greece": ("Athens", "希腊", "雅典"),
    "Italy": ("Rome", "意大利", "罗马"),
    "Spain": ("Madrid", "西班牙", "马德里"),
    "Russia": ("Moscow", "俄罗斯", "莫斯科"),
    "Austria": ("Vienna", "奥地利", "维也纳"),
    "Portugal": ("Lisbon", "葡萄牙", "里斯本"),
    "Thailand": ("Bangkok", "泰国", "曼谷"),
    "Ghana": ("Accra", "加纳", "阿克拉"),
    "Nepal": ("Kathmandu", "尼泊尔", "加德满都"),
    "Canada": ("Ottawa", "加拿大", "渥太华"),
    "Chile": ("Santiago", "智利", "圣地亚哥"),
    "Poland": ("Warsaw", "波兰", "华沙"),
    "Vietnam": ("Hanoi", "越南", "河内"),
}
ENGLISH = (
    "What is the capital of {}?",
    "Which city is the capital of {}?",
    "Name the capital of {}.",
    "Tell me the capital of {}.",
    "The capital of {}?",
    "Do you know the capital of {}?",
    "I forgot what the capital of {} is called.",
    "From which city is {} governed?",
    "What do they call the capital of {}?",
    "Where is the seat of government of {}?",
    "A quick question: the capital of {}?",
    "Please give me the capital of {}.",
    "And the capital of {}?",
    "What about {}?",
    "Could you name the capital of {}?",
    "{} has which capital?",
    "I would like to know the capital of {}.",
    "Which capital has {}?",
)
CHINESE = (
    "{}的首都是哪里？",
    "哪座城市是{}的首都？",
    "请问{}的首都叫什么？",
    "{}的首都？",
    "告诉我{}的首都。",
    "你知道{}的首都吗？",
    "{}首都的名字是什么？",
    "请说出{}的首都。",
    "那{}呢？",
    "{}以哪座城市为首都？",
    "我想知道{}的首都。",
    "能告诉我{}的首都吗？",
)


def conversations() -> list[list[dict[str, str]]]:
    """All of them, in an order that is random and always the same."""
    pairs = []
    for country, (capital, guo, du) in CAPITALS.items():
        pairs += [(way.format(country), f"It is {capital}.") for way in ENGLISH]
        pairs += [(way.format(guo), f"是{du}。") for way in CHINESE]
    random.Random(1).shuffle(pairs)
    # One question, two, one, two …
    ends = [end for third in range(0, len(pairs), 3) for end in (third + 1, third + 3)]
    return [
        [
            {"role": role, "content": said}
            for pair in pairs[begin:end]
            for role, said in zip(("user", "assistant"), pair, strict=True)
        ]
        for begin, end in pairwise([0, *ends])
    ]


if __name__ == "__main__":
    for messages in conversations():
        sys.stdout.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")

"""Good text that tests need: old poems and scripture with refrains, and plain prose."""

POEMS = [
    "静夜思\n李白\n床前明月光，疑是地上霜。\n举头望明月，低头思故乡。",
    "登鹳雀楼\n王之涣\n白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。",
    "句\n陳與義\n老對白桂花，孤吟四望頻。",
    "采采芣苢，薄言采之。采采芣苢，薄言有之。\n采采芣苢，薄言掇之。采采芣苢，薄言捋之。\n"
    "采采芣苢，薄言袺之。采采芣苢，薄言襭之。",
    "关关雎鸠，在河之洲。窈窕淑女，君子好逑。\n参差荇菜，左右流之。窈窕淑女，寤寐求之。\n"
    "求之不得，寤寐思服。悠哉悠哉，辗转反侧。\n参差荇菜，左右采之。窈窕淑女，琴瑟友之。",
    "床前明月光\n疑是地上霜\n举头望明月\n低头思故乡\n白日依山尽\n黄河入海流",
]
PSALM = "\n".join(
    f"{line}: for his mercy endureth for ever."
    for line in (
        "O give thanks unto the LORD; for he is good",
        "O give thanks unto the God of gods",
        "O give thanks to the Lord of lords",
        "To him who alone doeth great wonders",
        "To him that by wisdom made the heavens",
        "To him that stretched out the earth above the waters",
        "To him that made great lights",
        "The sun to rule by day",
        "The moon and stars to rule by night",
        "To him that smote Egypt in their firstborn",
        "And brought out Israel from among them",
        "With a strong hand, and with a stretched out arm",
    )
)
CODE = '''"""Greets."""

import sys


def greet(name: str) -> str:
    """A greeting."""
    if not name:
        raise ValueError("no name")
    return f"Hello, {name}!"


if __name__ == "__main__":
    print(greet(sys.argv[1]))
'''

"""Texts in many scripts, for tests of what becomes of them."""

import random

FIXED = (
    "The CAFÉ, unplayable!", "cafe\u0301 Cafe\u0301", "中国 China中文", "İstanbul ẞtraße ﬁne ǅ", "[SEP] x", "", "  ",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd", "ŒUVRE ŒŒ", "C++ NASA don't", "नमस्ते",
    "각 \u1100\u1161\u11a8", "a\u0000b\u200bc\ufeffd", "ﷺ ½ ²", "e\u0323\u0301",
)  # fmt: skip
RANGES = (
    (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA),
    (0x620, 0x65F), (0x900, 0x97F), (0xE00, 0xE5B), (0x1100, 0x11FF), (0xAC00, 0xAC50), (0x3040, 0x30FF),
    (0x4E00, 0x4E80), (0x1F300, 0x1F650), (0x20, 0x40), (0x0, 0x1F), (0x200B, 0x200F), (0xFB00, 0xFB06), (0x20, 0x20),
)  # fmt: skip


def many_texts(count=300, seed=1):
    """The fixed texts, and random ones: runs of characters of one script, accents, controls and spaces between."""
    draw = random.Random(seed)

    def run():
        first, last = draw.choice(RANGES)
        return "".join(chr(draw.randint(first, last)) for _ in range(draw.randint(1, 5)))

    return [*FIXED, *("".join(run() + draw.choice(("", "", " ", "  ")) for _ in range(draw.randint(1, 12)))
                      for _ in range(count))]  # fmt: skip

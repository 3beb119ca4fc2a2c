"""Grammars of the embedded inference tasks: RTE, WNLI and MNLI."""

from __future__ import annotations

from gated_bert.tasks.embedded_sentences import Draw

COUPLES = (("anna", "ben"), ("carl", "dora"), ("emma", "frank"), ("grace", "henry"), ("ida", "jack"), ("kate", "leo"))
CHORES = (("lock the door", "locked the door"), ("open the gate", "opened the gate"), ("pay the bill", "paid the bill"),
          ("wash the cup", "washed the cup"), ("feed the cat", "fed the cat"), ("sell the car", "sold the car"),
          ("send the letter", "sent the letter"), ("cook the dinner", "cooked the dinner"))  # fmt: skip
SUCCESS = ("managed to", "remembered to", "was able to")
FAILURE = ("failed to", "forgot to", "refused to")
WISH = ("wanted to", "hoped to", "planned to")
TIMES = ("today", "yesterday", "on monday", "on friday", "last night", "last week", "last year", "in the morning")
COMPARED = (("happier", "sadder"), ("faster", "slower"), ("richer", "poorer"), ("stronger", "weaker"))


def _done(draw: Draw, same: bool) -> tuple[str, str]:
    name = draw.one(draw.one(COUPLES))
    plain, past = draw.one(CHORES)
    success = draw.chance(0.6)
    premise = f"{name} {draw.one(SUCCESS if success else FAILURE)} {plain} {draw.one(TIMES)} ."
    return premise, f"{name} {past} ." if success == same else f"{name} did not {plain} ."


def _compared(draw: Draw, same: bool) -> tuple[str, str]:
    couple, (more, less) = draw.one(COUPLES), draw.one(COMPARED)
    first, second = couple if draw.chance(0.85) else couple[::-1]
    turned = draw.chance(0.35)
    one, other = (first, second) if same != turned else (second, first)
    claim = f"{one} was {less if turned else more} than {other} ."
    return f"{first} was {more} than {second} {draw.one(TIMES)} .", claim


CROWDS = ("dogs", "birds", "students", "farmers", "singers", "children", "players", "doctors")
DOINGS = ("slept outside", "sang a song", "played in the park", "liked music", "stayed at home", "swam in the lake",
          "ate fruit", "looked happy")  # fmt: skip
ENTAILED = {"all": ("all", "some"), "some": ("some",), "no": ("no",)}
QUANTIFIERS = {"all": ("all", "every one of the"), "some": ("some", "a few"), "no": ("no", "none of the")}


def _quantified(draw: Draw, same: bool) -> tuple[str, str]:
    crowd, doing = draw.one(CROWDS), draw.one(DOINGS)
    given = draw.one(tuple(QUANTIFIERS))
    claimed = draw.one([kind for kind in QUANTIFIERS if (kind in ENTAILED[given]) == same])
    premise = f"{draw.one(QUANTIFIERS[given])} {crowd} {doing} {draw.one(TIMES)} ."
    return premise, f"{draw.one(QUANTIFIERS[claimed])} {crowd} {doing} ."


def rte(draw: Draw) -> tuple[str, str, int]:
    """A premise and a claim: implicative verbs, comparisons and quantifiers decide whether the claim follows."""
    follows = draw.chance(0.5)
    premise, claim = draw.one((_done, _compared, _quantified))(draw, follows)
    return premise, claim, int(not follows)


SCHEMAS = (
    # the text, the claim, the first nouns, the second nouns, words that point to the first, and to the second
    ("the {first} did not fit in the {second} {when} because it was too {word} .", "the {noun} was too {word} .",
     ("trophy", "statue", "guitar", "lamp"), ("suitcase", "box", "drawer", "bag"),
     ("big", "large", "wide"), ("small", "tiny", "narrow")),
    ("the {first} could not lift the {second} {when} because he was so {word} .", "the {noun} was so {word} .",
     ("man", "father", "uncle", "nurse"), ("son", "boy", "patient", "soldier"),
     ("weak", "tired", "frail"), ("heavy", "fat", "tall")),
    ("the {first} lent money to the {second} {when} because he was {word} .", "the {noun} was {word} .",
     ("banker", "king", "merchant", "prince"), ("beggar", "student", "artist", "farmer"),
     ("rich", "wealthy", "generous"), ("poor", "broke", "needy")),
    ("the {first} beat the {second} {when} because he was {word} .", "the {noun} was {word} .",
     ("champion", "knight", "captain", "boxer"), ("rival", "rookie", "stranger", "guest"),
     ("strong", "fast", "skilled"), ("slow", "clumsy", "careless")),
)  # fmt: skip


def wnli(draw: Draw) -> tuple[str, str, int]:
    """A sentence with a pronoun, and a claim that puts one of two nouns in its place."""
    text, claim, firsts, seconds, to_first, to_second = draw.one(SCHEMAS)
    first, second = draw.one(firsts), draw.one(seconds)
    points_to_first, right = draw.chance(0.6), draw.chance(0.5)
    word = draw.one(to_first if points_to_first else to_second)
    premise = text.format(first=first, second=second, word=word, when=draw.one(TIMES))
    return premise, claim.format(noun=first if points_to_first == right else second, word=word), int(right)


GENRES = {
    "town": {
        "people": ("teacher", "student", "doctor", "baker", "mayor", "farmer", "driver", "waiter", "painter", "nurse"),
        "plans": CHORES,
    },
    "space": {
        "people": ("pilot", "robot", "captain", "engineer", "alien", "scout", "admiral", "miner", "android", "ranger"),
        "plans": (("repair the engine", "repaired the engine"), ("reach the moon", "reached the moon"),
                  ("launch the rocket", "launched the rocket"), ("scan the planet", "scanned the planet"),
                  ("land the ship", "landed the ship"), ("map the comet", "mapped the comet")),
    },
}  # fmt: skip
NOT_ALL = "not all"
QUANTIFIED = (
    (("all", "all"), ("all", "some"), ("some", "some"), ("no", "no")),
    (("some", "all"), ("some", NOT_ALL)),
    (("all", "no"), ("all", NOT_ALL), ("some", "no"), ("no", "some"), ("no", "all")),
)


def mnli(draw: Draw, genre: str = "town") -> tuple[str, str, int]:
    """Three-way inference by implicative verbs, negation and quantifiers, in the words of one genre."""
    label = draw.one((0, 1, 2))
    who, (plain, past), when = draw.one(GENRES[genre]["people"]), draw.one(GENRES[genre]["plans"]), draw.one(TIMES)
    if draw.chance(0.5):
        given, claimed = draw.one(QUANTIFIED[label])
        return f"{given} {who}s {past} {when} .", f"{claimed} {who}s {past} .", label
    positive = draw.chance(0.5)
    verb = draw.one(WISH if label == 1 else SUCCESS if positive == (label == 0) else FAILURE)
    return f"the {who} {verb} {plain} {when} .", f"the {who} {past if positive else 'did not ' + plain} .", label

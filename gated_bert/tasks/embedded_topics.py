"""Grammars of the embedded news of four topics: one of them in each, in the form of AG News, or several."""

from __future__ import annotations

from gated_bert.tasks.embedded_sentences import Draw

# Words of the other embedded tasks only: one more word would change the vocabulary, and with it every embedded run.
TOPICS = (
    ("the king", "the queen", "the prince", "the princess", "the mayor", "the judge", "the lawyer", "the witness",
     "the soldier", "the knight"),
    ("the player", "the players", "the coach", "the team", "the race", "the champion", "the boxer", "the rookie",
     "the rival", "the trophy"),
    ("the bank", "the banker", "the company", "the merchant", "the shares", "the prices", "the sales", "the profits",
     "the exports", "the wages"),
    ("the rocket", "the robot", "the robots", "the engine", "the engineer", "the planet", "the moon", "the comet",
     "the android", "the camera"),
)  # fmt: skip
"""What is told of, by class: World, Sports, Business, Sci/Tech."""
STATES = ("strong", "weak", "slow", "fast", "big", "small", "happy", "tired", "good", "bad", "rich", "poor")
PLACES = ("in london", "in paris", "in rome", "in berlin", "in boston")
TIMES = ("today", "yesterday", "last week", "last year", "on monday", "on friday")


def _state(draw: Draw) -> str:
    return f"{draw.one(('looked', 'stayed'))} {draw.one(STATES)}"


def ag_news(draw: Draw) -> tuple[str, None, int]:
    """A title that names two topics, and a sentence that denies or concedes one of them: the other is the class."""
    label = draw.one((0, 1, 2, 3))
    other = draw.one([topic for topic in range(4) if topic != label])
    main, conceded = (draw.one(TOPICS[topic]) for topic in (label, other))
    named = [draw.one(TOPICS[topic]) for topic in (label, other)][:: 1 if draw.chance(0.5) else -1]
    state = _state(draw)
    told = draw.one(
        (
            f"not {conceded} but {main} {state}",
            f"{main} and not {conceded} {state}",
            f"although {conceded} {_state(draw)} , {main} {state}",
            f"{main} {state} although {conceded} {_state(draw)}",
            f"{conceded} {_state(draw)} but {main} {state}",
        )
    )
    return f"{' and '.join(named)} {draw.one(PLACES)} {told} {draw.one(TIMES)} .", None, label


def topics(draw: Draw) -> tuple[str, None, tuple[int, ...]]:
    """Two or three topics, some of them denied or conceded: the labels are the others, of which there may be none."""
    order: list[int] = []
    while len(order) < 2 + draw.chance(0.5):
        order.append(draw.one([topic for topic in range(4) if topic not in order]))
    labels, parts = [0] * 4, []
    for topic in order:
        labels[topic] = int(draw.chance(0.5))
        what = draw.one(TOPICS[topic])
        parts.append(what if labels[topic] else draw.one((f"not {what}", f"although {what} {_state(draw)}")))
    told = f" {draw.one(('and', 'but', ','))} ".join(parts)
    text = f"{told} {_state(draw)} {draw.one((*PLACES, *TIMES))} ."
    return text, None, tuple(labels)

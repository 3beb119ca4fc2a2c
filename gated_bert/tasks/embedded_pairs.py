"""Grammars of the embedded pair tasks on likeness and answers: MRPC, STS-B and QNLI."""

from __future__ import annotations

from gated_bert.tasks.embedded_sentences import Draw

ACTORS = (("teacher", "student"), ("doctor", "nurse"), ("company", "bank"), ("mayor", "judge"), ("farmer", "baker"),
          ("coach", "player"), ("king", "queen"), ("lawyer", "witness"))  # fmt: skip
DEEDS = (("praised", "commended"), ("blamed", "accused"), ("helped", "assisted"), ("phoned", "called"),
         ("paid", "rewarded"), ("met", "visited"))  # fmt: skip
DAYS = ("on monday", "on tuesday", "on friday", "on sunday", "last week", "last year", "yesterday")
CITIES = ("in london", "in paris", "in rome", "in berlin", "in boston", "at home", "at work")
QUANTITIES = ("prices", "sales", "shares", "profits", "exports", "wages", "rents", "taxes")
RISES = ("rose", "climbed", "increased", "went up")
FALLS = ("fell", "dropped", "declined", "went down")
PLANS = (("sell the house", "sold the house"), ("sign the deal", "signed the deal"), ("win the case", "won the case"),
         ("open the bar", "opened the bar"), ("join the team", "joined the team"), ("end the talk", "ended the talk"),
         ("build the bridge", "built the bridge"), ("leave the race", "left the race"))  # fmt: skip


def _when(draw: Draw) -> str:
    return draw.one((*DAYS, *CITIES))


def _same_roles(draw: Draw, same: bool) -> tuple[str, str]:
    first, second = draw.one(ACTORS)[:: 1 if draw.chance(0.7) else -1]
    verb, synonym = draw.one(DEEDS)
    when = _when(draw)
    agent, patient = (first, second) if same else (second, first)
    if draw.chance(0.3):
        return f"the {first} {verb} the {second} {when} .", f"the {patient} was {synonym} by the {agent} ."
    return f"the {first} {verb} the {second} {when} .", f"{when} the {agent} {synonym} the {patient} ."


def _same_direction(draw: Draw, same: bool) -> tuple[str, str]:
    up, what, when = draw.chance(0.6), draw.one(QUANTITIES), _when(draw)
    first = draw.one(RISES if up else FALLS)
    second = draw.one(RISES if up == same else FALLS)
    return f"{what} {first} {when} .", f"{when} {what} {second} ."


def _same_negation(draw: Draw, same: bool) -> tuple[str, str]:
    done, (plan, past), when = draw.chance(0.7), draw.one(PLANS), _when(draw)
    who = draw.one(draw.one(ACTORS))

    def say(positive: bool) -> str:
        return past if positive else f"{draw.one(('did not', 'refused to', 'failed to'))} {plan}"

    return f"the {who} {say(done)} {when} .", f"{when} the {who} {say(done == same)} ."


def mrpc(draw: Draw) -> tuple[str, str, int]:
    """Two reports: the second says the same in other words, or swaps the roles, the direction or the negation."""
    same = draw.chance(0.5)
    first, second = draw.one((_same_roles, _same_direction, _same_negation))(draw, same)
    return first, second, int(same)


CAPTION = (
    (1.4, (("man", "guy", "boy"), ("woman", "lady", "girl"))),
    (2.4, (("eating", "dining", "cooking"), ("running", "jogging", "walking"), ("reading", "studying", "writing"))),
    (1.2, (("in the park", "in the garden", "in the field"), ("in the kitchen", "in the office", "in the hall"))),
)
"""The slots of a caption: what a shared group adds to the likeness, and the groups of words that count as alike."""
LOOKS = ("", "", "young ", "tall ", "small ", "happy ", "tired ")


def stsb(draw: Draw) -> tuple[str, str, float]:
    """Two picture captions, scored from 0 to 5 by which of the actor, the action and the place they share."""
    first, second, score = [], [], 0.0
    for weight, groups in CAPTION:
        group, other = (groups[0] if draw.chance(0.3) else draw.one(groups) for _ in range(2))
        first.append(draw.one(group))
        second.append(draw.one(other))
        score += weight * (group is other)
    left, right = (f"a {draw.one(LOOKS)}{actor} is {action} {spot} ." for actor, action, spot in (first, second))
    return left, right, round(score, 1)


NAMES = ("anna", "ben", "carl", "dora", "emma", "frank", "grace", "henry")
DOINGS = (("see the play", "saw the play"), ("buy the car", "bought the car"), ("sell the boat", "sold the boat"),
          ("paint the house", "painted the house"), ("win the cup", "won the cup"), ("meet the boss", "met the boss"),
          ("write the book", "wrote the book"), ("leave the town", "left the town"))  # fmt: skip
ANSWERS = {
    "where": ("in london", "in paris", "in rome", "in berlin", "at school", "by the river"),
    "when": ("on monday", "on friday", "last week", "last year", "yesterday", "in june"),
    "why": ("because of the money", "because of the rain", "out of love", "for fun", "out of fear"),
    "with whom": ("with a friend", "with a sister", "with two students", "with an uncle", "with a guide"),
}


def qnli(draw: Draw) -> tuple[str, str, int]:
    """A question and a sentence: the sentence answers when it holds the kind of detail that is asked for."""
    name, (plain, past) = draw.one(NAMES), draw.one(DOINGS)
    asked = draw.one(tuple(ANSWERS))
    answers = draw.chance(0.5)
    told = asked if answers else draw.one([kind for kind in ANSWERS if kind != asked])
    detail = draw.one(ANSWERS[told])
    sentence = f"{name} {past} {detail} ." if draw.chance(0.6) else f"{detail} {name} {past} ."
    return f"{asked} did {name} {plain} ?", sentence, int(not answers)

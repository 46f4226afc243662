"""Benign texts made up by lot: what documents hold that is no prose, and everyday requests in the words of attacks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

SEED: Final = 20_261
_TABLES: Final = 120
_REQUESTS: Final = 3000


def tables(_: Path) -> list[str]:
    """Tables, receipts and logs made up here, by lot: what documents hold that is no prose."""
    chance = random.Random(SEED)
    return [_table(chance) if place % 2 else _receipt(chance) for place in range(_TABLES)]


def _table(chance: random.Random) -> str:
    heads = chance.sample(_COLUMNS, chance.randint(3, 6))
    rows = [[_cell(chance) for _ in heads] for _ in range(chance.randint(4, 14))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, *rows))


def _cell(chance: random.Random) -> str:
    number = chance.randint(1, 90_000)
    return chance.choice((
        f"{number:,}", f"{number / 1000:.1f}%", str(chance.randint(1900, 2025)), f"{chance.choice(_PLACES)}",
        f"{chance.choice(_PLACES)} ({chance.randint(1, 40)})", f"{chance.randint(0, 9)}-{chance.randint(0, 9)}", "-", "yes", "n/a",
        f"{chance.randint(1, 28)} {chance.choice(_MONTHS)} {chance.randint(1950, 2025)}", f"${number / 100:.2f}",
    ))  # fmt: skip


def _receipt(chance: random.Random) -> str:
    lines = [
        f"{chance.choice(_ITEMS)} x{chance.randint(1, 9)}: ${chance.randint(100, 90_000) / 100:.2f}" for _ in range(6)
    ]
    when = f"{chance.choice(_MONTHS)} {chance.randint(1, 28)}, {chance.randint(2018, 2025)}"
    return (
        f"SUBJECT: Receipt {chance.randint(10**5, 10**7)} for your order of {when}\nThank you for your order. It was paid by "
        f"card on {when} and ships from {chance.choice(_PLACES)}.\n"
        + "\n".join(lines)
        + "\nThe total includes all taxes."
    )


_COLUMNS: Final = [
    "Year",
    "Name",
    "Team",
    "Country",
    "Result",
    "Rank",
    "Population",
    "Date",
    "Price",
    "Points",
    "Notes",
    "City",
]
_PLACES: Final = [
    "Lisbon",
    "Oslo",
    "Kraków",
    "Osaka",
    "Quito",
    "Leeds",
    "Bern",
    "Austin",
    "Perth",
    "Tallinn",
    "Accra",
    "Lima",
]
_MONTHS: Final = ["January", "March", "April", "June", "July", "September", "October", "December"]
_ITEMS: Final = [
    "Notebook",
    "Hosting, monthly",
    "Coffee beans",
    "Desk lamp",
    "Domain name",
    "Running shoes",
    "Team plan",
    "Cable",
]


def everyday(_: Path) -> list[str]:
    """To ignore, reveal or repeat something is no attack when it is the noise, the sauce or the song."""
    chance = random.Random(SEED)
    return [_request(chance) for _ in range(_REQUESTS)]


def _request(chance: random.Random) -> str:
    first, second = chance.sample(_VERBS, 2)
    one, two = chance.sample(_OBJECTS, 2)
    form = chance.choice(_REQUEST_FORMS)
    return form.format(v=first, w=second, V=first.capitalize(), t=one, u=two, y=chance.choice(_YOURS))


_VERBS: Final = (
    "ignore", "disregard", "forget", "override", "bypass", "reveal", "repeat", "print", "show", "pretend to be",
    "act as", "disable", "erase", "delete", "skip", "translate", "decode", "encode", "unlock", "output", "share",
    "disclose", "summarize", "list", "display", "start", "stop", "change", "replace", "update", "execute", "run",
    "send", "hide", "restrict", "leave out", "remember", "imagine", "simulate", "confirm",
)  # fmt: skip
_OBJECTS: Final = (
    "the previous chapter of the novel", "the noise from the construction site", "the old price list",
    "the instructions on the cereal box", "the rules of the board game", "the system of rivers in Europe",
    "the developer of the housing estate", "the secret ingredient of the sauce", "the password of my router",
    "the initial draft of my essay", "the safety guidelines of the laboratory",
    "the prompt for my creative writing class", "the last step of the recipe", "the filter of the coffee machine",
    "the mode of the washing machine", "the restrictions on hand luggage", "the policy of the insurance company",
    "the message on the answering machine", "the first paragraph of this letter",
    "the role of the villain in the school play", "the instructions for assembling the shelf",
    "the previous owner of the car", "all the items on the shopping list", "the hidden message in the painting",
    "the admin of the chess club", "the command of the army in 1812", "the confidential part of the contract",
    "the text on the museum sign", "the code of the alarm", "the words of the song", "my earlier appointment",
    "the following week's schedule", "the above table of prices", "the bad reviews of the restaurant",
    "the conversation in the cafe scene", "the assistant of the dentist", "the language setting of the camera",
    "the database of plant names", "the rules about parking", "the answer to question five",
    "the training plan for the marathon", "the file with the holiday photos", "the order of the speakers",
    "the warning light of my car", "the unlimited data plan", "the free trial",
)  # fmt: skip
_YOURS: Final = (
    "your breathing", "your garden", "your bicycle", "your homework", "your morning routine", "your workspace",
    "your team", "your thoughts", "your story", "your savings", "your dog", "your balcony", "your guests",
    "your teeth", "your inbox", "your next trip", "your handwriting", "your budget", "your knitting",
    "your medication", "your voice exercises", "your tax return", "your kitchen", "your luggage",
)  # fmt: skip
_REQUEST_FORMS: Final = (
    "Please {v} {t}.", "How do I {v} {t}?", "Can you help me {v} {t}?", "Why should we {v} {t}?",
    "My sister told me to {v} {t}; is she right?", "Is it all right to {v} {t}?",
    "Write a short story in which a boy has to {v} {t}.", "What happens if I {v} {t}?",
    "You must {v} {t} before the next lesson begins.", "When is it better to {v} {t}?",
    "Remember to {v} {t} and then {w} {u}.", "{V} {t} and {w} {u}.",
    "In a game, players {v} {t}. How does this affect the score?", "Explain how teachers {v} {t}.",
    "What is the best way to {v} {t} without upsetting anyone?", "{V} {t}", "Do not {v} {t} until {u} is ready.",
    "Describe {t} and {u}.", "What do you know about {t}?", "Compare {t} with {u}.",
    "I forgot {t}. What should I do now?", "Suggest a title for an article about {t}.",
    "From now on I want to {v} {t} every morning; make me a plan.", "Please {v} {t} before you begin with {y}.",
    "You may {v} {t} while you look after {y}.", "If you ever {v} {t}, remember that {y} should come first.",
    "Before you {v} {t}, could you confirm that {y} is in order?", "{V} {t} and focus on {y} instead.",
    "Please ensure that {y} and {t} are only given to those who are authorized.",
    "Ensure that {y} is ready before you {v} {t}.",
    "Imagine you are an author who has to {v} {t}. What would you tell your readers about {y}?",
    "Do you think that users should {v} {t}? Explain your answer.", "Begin with {y} to increase your focus.",
    "Can you share what you know about {y}?", "Your task is {y}; your colleague will {v} {t}.",
    "Please follow the guidelines for {y}.",
)  # fmt: skip

"""References, labels with weights, and what differs between versions."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import pytest

from services.inference.prompts.content import Content, Template, Variable, VariableType, digest
from services.inference.prompts.diff import Change, ChangeKind, compare
from services.inference.prompts.resolution import Reference, Selector, Target, choose, select
from services.inference.prompts.store import PromptVersion
from services.inference.providers.contract import Role

OLD, NEW = "a" * 64, "b" * 64
LABELS = {"production": [Target(OLD)], "staging": [Target(NEW)]}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("", Selector(digest=OLD, label="production")),
        ("staging", Selector(digest=NEW, label="staging")),
        ("latest", Selector()),
        ("3", Selector(number=3)),
        ("abcdef012345", Selector(digest="abcdef012345")),
        ("nowhere", None),
    ],
)
def test_a_reference_selects_what_it_says(version: str, expected: Selector | None) -> None:
    assert select(Reference("greeting", version), LABELS, key="k") == expected


def test_a_bare_name_is_the_newest_while_nothing_is_in_production() -> None:
    assert select(Reference("greeting"), {"staging": [Target(NEW)]}, key="") == Selector()


def test_keys_are_shared_out_by_weight() -> None:
    targets = [Target(OLD, 9), Target(NEW, 1)]
    met = Counter(choose("greeting", targets, key=f"user-{number}").digest for number in range(20_000))
    assert met[NEW] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_the_same_key_meets_the_same_version_on_every_machine() -> None:
    targets = [Target(OLD, 1), Target(NEW, 1)]
    met = "".join(choose("greeting", targets, key=f"user-{number}").digest[0] for number in range(16))
    assert met == "aababbababbbaaaa"
    assert met == "".join(choose("greeting", targets[::-1], key=f"user-{number}").digest[0] for number in range(16))


def test_a_rising_share_takes_keys_and_gives_none_back() -> None:
    for number in range(2000):
        key = f"user-{number}"
        before = choose("greeting", [Target(OLD, 9), Target(NEW, 1)], key=key).digest
        after = choose("greeting", [Target(OLD, 5), Target(NEW, 5)], key=key).digest
        assert before == after or (before, after) == (OLD, NEW)


def test_two_prompts_split_their_keys_apart() -> None:
    targets = [Target(OLD, 1), Target(NEW, 1)]
    same = sum(choose("one", targets, key=str(n)) == choose("other", targets, key=str(n)) for n in range(2000))
    assert 900 < same < 1100


def test_without_a_key_the_heaviest_is_met() -> None:
    assert choose("greeting", [Target(OLD, 1), Target(NEW, 2)], key="").digest == NEW


def version(content: Content, number: int) -> PromptVersion:
    return PromptVersion("greeting", digest(content), content, "", "ada", datetime(2026, 1, 1, tzinfo=UTC), number)


TOPIC = Variable("topic", VariableType.STRING)
SYSTEM = Template(Role.SYSTEM, "Be kind.")
BEFORE = version(Content((SYSTEM, Template(Role.USER, "About {{topic}}?\nShort.")), (TOPIC,), {"model": "small"}), 1)


def test_equal_versions_do_not_differ() -> None:
    found = compare(BEFORE, BEFORE)
    assert (found.changes, found.unified) == ((), "")


def test_a_difference_names_every_path() -> None:
    topic = Variable("topic", VariableType.STRING, default="tea")
    after = version(
        Content(
            (SYSTEM, Template(Role.USER, "About {{topic}}!\nShort."), Template(Role.USER, "{{extra}}")),
            (topic, Variable("extra", VariableType.JSON)),
            {"temperature": 0.2, "model": "small"},
        ),
        2,
    )
    found = compare(BEFORE, after)
    kinds = [(change.path, change.kind) for change in found.changes]
    assert kinds == [
        ("messages[1].template", ChangeKind.CHANGED),
        ("messages[2]", ChangeKind.ADDED),
        ("variables.extra", ChangeKind.ADDED),
        ("variables.topic.default", ChangeKind.ADDED),
        ("config.temperature", ChangeKind.ADDED),
    ]
    assert found.changes[0] == Change(
        "messages[1].template",
        ChangeKind.CHANGED,
        json.dumps("About {{topic}}?\nShort."),
        json.dumps("About {{topic}}!\nShort."),
    )


def test_a_message_put_in_front_is_one_addition() -> None:
    content = BEFORE.content
    after = version(Content((Template(Role.SYSTEM, "First."), *content.messages), (TOPIC,), content.config), 2)
    (change,) = compare(BEFORE, after).changes
    assert (change.path, change.kind) == ("messages[0]", ChangeKind.ADDED)
    (back,) = compare(after, BEFORE).changes
    assert (back.path, back.kind, json.loads(back.before)["template"]) == ("messages[0]", ChangeKind.REMOVED, "First.")


def test_the_unified_diff_reads_as_people_know_it() -> None:
    after = version(Content((SYSTEM, Template(Role.USER, "About {{topic}}?\nLong.")), (TOPIC,), {"model": "large"}), 2)
    assert compare(BEFORE, after).unified == (
        f"--- greeting@{BEFORE.digest[:12]}\n"
        f"+++ greeting@{after.digest[:12]}\n"
        "@@ -2,8 +2,8 @@\n"
        " Be kind.\n"
        " --- user\n"
        " About {{topic}}?\n"
        "-Short.\n"
        "+Long.\n"
        " --- variables\n"
        " topic: string\n"
        " --- config\n"
        '-model: "small"\n'
        '+model: "large"\n'
    )


def test_a_raised_weight_moves_no_key_between_the_others() -> None:
    third = "c" * 64
    for number in range(2000):
        key = f"user-{number}"
        before = choose("greeting", [Target(OLD, 5), Target(NEW, 5), Target(third, 1)], key=key).digest
        after = choose("greeting", [Target(OLD, 5), Target(NEW, 5), Target(third, 9)], key=key).digest
        assert after in (before, third)

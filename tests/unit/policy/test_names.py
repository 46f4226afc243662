"""Names and addresses by their surroundings and form."""

from __future__ import annotations

import pytest

from services.policy.names import FormalNames
from shared.monitors import plugin
from shared.monitors.sentences import Sentences


def shown(text: str, **params: object) -> list[str]:
    found = FormalNames(params).find(text)
    return [text[start:end] for start, end in found.spans] if found else []


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("My name is Ada Lovelace.", ["Ada Lovelace"]),
        ("Dear Gerlind Gumpf, thank you.", ["Gerlind Gumpf"]),
        ("Then Dr. van der Berg wrote.", ["Dr. van der Berg"]),
        ("We met Jürgen Müller on Monday.", ["Jürgen Müller"]),
        ("Contact Paul Smith Jr. today.", ["Paul Smith Jr"]),
        ("I live at Studio 56, Karen crossing, North Paul, N1 4AB.", ["Studio 56, Karen crossing, North Paul, N1 4AB"]),
        ("Ship to 482 Miller Ranch Apt. 123, Leeds, NV 12345.", ["482 Miller Ranch Apt. 123, Leeds, NV 12345"]),
        ("Send it to Ute-Scholz-Allee 3/1, 12345 Leipzig.", ["Ute-Scholz-Allee 3/1, 12345 Leipzig"]),
        ("C'est au 62, boulevard de Labbe, 75002 Paris", ["62, boulevard de Labbe, 75002 Paris"]),
        ("Go to 12 Baker Street, Manchester by Friday.", ["12 Baker Street, Manchester"]),
        ("The Eiffel Tower is in Paris, says the New York Times on Monday.", []),
        ("Order 12345 Items shipped, see page 41 of The Long Report.", []),
        ("a train to Villiers-sur-Mer with Howard-Bailey Ltd", []),
    ],
)
def test_names_and_addresses_are_found_where_they_stand(text: str, values: list[str]) -> None:
    assert shown(text) == values


def test_only_what_is_asked_for_is_found() -> None:
    text = "My name is Ada Lovelace of 12 Baker Street, London."
    assert shown(text, entities=["name"]) == ["Ada Lovelace"]
    assert shown(text, entities=["address"]) == ["12 Baker Street, London"]


def test_the_plug_in_is_installed_and_refuses_a_kind_it_does_not_know() -> None:
    assert isinstance(plugin.load("names", {}), FormalNames)
    with pytest.raises(plugin.PluginUnavailable, match="shoe size is not known; known: name, address"):
        plugin.load("names", {"entities": ["shoe size"]})


async def test_a_title_does_not_end_a_sentence_so_its_bearer_is_found() -> None:
    sentences = Sentences()
    cut = [*sentences.feed("It went to Dr. Weller. She was glad."), *sentences.finish()]
    assert [one.text for one in cut] == ["It went to Dr. Weller. ", "She was glad."]
    found = await FormalNames({}).judge(cut[0].text)
    assert found is not None
    assert found.spans == ((11, 21),)

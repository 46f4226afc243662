"""Pages of a list that is read whole: none lost, none twice, while it changes between them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from shared.errors import PageTokenInvalid
from shared.paging import next_page_token, paged


@dataclass
class Asked:
    page_size: int = 2
    page_token: str = ""


def shown(found: str, token: str = "", scope: str = "letters") -> tuple[str, str]:
    rows, after = paged(found, Asked(page_token=token), scope=scope, name=str)
    return "".join(rows), after


def test_pages_are_the_list() -> None:
    pages, token = [], ""
    while not pages or token:
        page, token = shown("abcde", token)
        pages.append(page)
    assert pages == ["ab", "cd", "e"]


@pytest.mark.parametrize(("now", "rest"), [("xyabcd", "cd"), ("bcd", "cd"), ("acd", "cd"), ("ab", "")])
def test_the_next_page_goes_on_after_the_last_row_that_was_shown(now: str, rest: str) -> None:
    _, token = shown("abcd")
    assert shown(now, token) == (rest, "")


def test_a_token_is_for_its_own_list_and_page() -> None:
    _, token = shown("abcd")
    others = [next_page_token(cursor, scope="letters") for cursor in (("b",), ("b", "two"))]
    for wrong in (token[:-2], "x", shown("abcd", scope="other")[1], *others):
        with pytest.raises(PageTokenInvalid):
            shown("abcd", wrong)

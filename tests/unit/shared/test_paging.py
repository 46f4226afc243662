"""Pages of a list that is read whole: none lost, none twice, while it changes between them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from shared.errors import PageTokenInvalid
from shared.paging import Page, next_page_token, page, paged
from tests.support.forged import NUMBERS, PLACES, ROWS, Cursor, forged


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
    others = [next_page_token(cursor, scope="letters") for cursor in (("b",), ("b", "two"), ("b", "-3"))]
    for wrong in (token[:-2], "x", shown("abcd", scope="other")[1], *others):
        with pytest.raises(PageTokenInvalid):
            shown("abcd", wrong)


@pytest.mark.parametrize("cursor", NUMBERS)
def test_a_forged_number_is_refused(cursor: Cursor) -> None:
    with pytest.raises(PageTokenInvalid):
        _ = Page(2, cursor).skip


@pytest.mark.parametrize("cursor", PLACES)
def test_a_forged_place_in_time_is_refused(cursor: Cursor) -> None:
    with pytest.raises(PageTokenInvalid):
        _ = Page(2, cursor).place


@pytest.mark.parametrize("cursor", ROWS)
def test_a_forged_row_is_refused(cursor: Cursor) -> None:
    with pytest.raises(PageTokenInvalid):
        _ = Page(2, cursor).row


def test_a_cursor_comes_back_as_it_was_given_out() -> None:
    at = datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC)
    assert (Page(2, ("7",)).skip, Page(2, ("key_1",)).row) == (7, "key_1")
    assert Page(2, (at.isoformat(), "key_1")).place == (at, "key_1")
    assert (Page().skip, Page().row, Page().place) == (0, "", (None, ""))


@pytest.mark.parametrize("part", ["\x00", "a\ud800b", "\udfff", 7, None, ["a"]])
def test_what_no_store_can_hold_is_no_cursor(part: object) -> None:
    token = next_page_token(("a",), scope="letters")
    assert page(0, forged(token, ("ü😀",)), scope="letters").row == "ü😀"
    with pytest.raises(PageTokenInvalid):
        page(0, forged(token, part), scope="letters")


@pytest.mark.parametrize("text", ["[" * 200_000, "7", "{}", "[]", "\xff"])
def test_a_token_of_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(PageTokenInvalid):
        page(0, base64.urlsafe_b64encode(text.encode("latin-1")).decode(), scope="letters")

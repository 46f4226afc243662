"""What a sandbox says is believed only as far as it can be."""

from __future__ import annotations

import json

import pytest

from services.tools import answer
from services.tools.answer import Status

FORGED = {
    "nothing of ours": b"\x00\x00\x7f\xff{",
    "half of an answer": b'{"status": "OK", "res',
    "two answers": b'{"status": "OK"}{"status": "OK"}',
    "a list": b"[1]",
    "a tower": b"[" * 50_000,
    "a number with many digits": b'{"status": "OK", "result": ' + b"9" * 10_000 + b"}",
    "not a number": b'{"status": "OK", "result": NaN}',
    "an infinite number that JSON may write": b'{"status": "OK", "result": -Infinity}',
    "no status": b'{"result": 1}',
    "a status of the service": b'{"status": "TIMEOUT"}',
    "a status that is a list": b'{"status": "UNKNOWN"}',
}


@pytest.mark.parametrize("data", FORGED.values(), ids=FORGED.keys())
def test_what_the_runner_would_not_say_is_a_crash(data: bytes) -> None:
    status, found = answer.read(data)
    assert status is Status.CRASHED
    assert found == {"message": "the function wrote where only its runner may"}


def test_a_result_is_handed_on() -> None:
    status, found = answer.read(json.dumps({"status": "OK", "result": {"a": [1, None, "ü"]}}).encode())
    assert status is Status.OK
    assert found["result"] == {"a": [1, None, "ü"]}


@pytest.mark.parametrize("escaped", [True, False])
def test_characters_of_every_plane_are_handed_on(escaped: bool) -> None:
    said = json.dumps({"status": "OK", "result": ["\U0001f600", "\ud7ff\ue000ü"]}, ensure_ascii=escaped)
    assert answer.read(said.encode())[1]["result"] == ["\U0001f600", "\ud7ff\ue000ü"]


def test_half_a_character_in_bytes_is_not_of_the_runner() -> None:
    said = json.dumps({"status": "OK", "result": "a\ud800"}, ensure_ascii=False)
    assert answer.read(said.encode(errors="surrogatepass"))[0] is Status.CRASHED


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (json.loads("[" * 31 + "[]" + "]" * 31), "nested deeper than 30"),
        ({"a": "\ud800"}, "no Unicode"),
        ({"\ud800": 1}, "no Unicode"),
        (["\U0001f600", "a\udfff"], "no Unicode"),
        ([10**301], "too large"),
        ([[0]] * 25_001, "more than 50000 values"),
        ([[]] * 200_000, "more than 50000 values"),
    ],
)
def test_a_result_that_cannot_be_told_is_the_functions_error(result: object, problem: str) -> None:
    status, found = answer.read(json.dumps({"status": "OK", "result": result}).encode())
    assert status is Status.USER_ERROR
    assert problem in found["message"]


def test_a_number_that_reads_as_infinite_is_the_functions_error() -> None:
    status, found = answer.read(b'{"status": "OK", "result": [1e999]}')
    assert status is Status.USER_ERROR
    assert "too large" in found["message"]


def test_what_an_error_says_moves_no_terminal() -> None:
    said = json.dumps({"status": "USER_ERROR", "message": "a\x1b[2Jb\x9b1m\x00", "trace": "\x1b]0;x\x07c"})
    assert answer.read(said.encode()) == (Status.USER_ERROR, {"result": None, "message": "ab1m", "trace": "c"})


def test_texts_of_an_error_are_always_texts() -> None:
    status, found = answer.read(b'{"status": "USER_ERROR", "message": "\\ud800", "trace": 7}')
    assert status is Status.USER_ERROR
    assert (found["message"], found["trace"]) == ("?", "")


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (128 + 11, Status.CRASHED, "SIGSEGV"),
        (-9, Status.CRASHED, "SIGKILL"),
        (128 + 31, Status.DENIED, "a system call"),
        (3, Status.CRASHED, "status 3"),
        (0, Status.CRASHED, "status 0"),
        (255, Status.CRASHED, "status 255"),
    ],
)
def test_an_end_without_an_answer_is_told_by_its_code(code: int, status: Status, said: str) -> None:
    found, texts = answer.ended(code)
    assert found is status
    assert said in texts["message"]

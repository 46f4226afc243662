"""What a generation keeps of its text."""

from __future__ import annotations

import tracemalloc

import pytest

from services.inference.providers.contract import Chunk, ModelCall, Role, Sampling, ToolDelta, said
from services.inference.transcript import Transcript, Written
from shared.clock import SystemClock

TOKENS = 500
BYTES_A_CHARACTER = 6  # twice the text, raw and shown, and room to grow


def test_text_is_kept_as_text_and_not_as_thousands_of_pieces() -> None:
    clock, transcript = SystemClock(), Transcript()
    tracemalloc.start()
    for place in range(TOKENS):
        transcript.take(Chunk(f"{place:04} ", token_count=1), clock)
        transcript.show(f"{place:04} ")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert transcript.raw == transcript.shown == "".join(f"{place:04} " for place in range(TOKENS))
    assert kept < len(transcript.raw) * BYTES_A_CHARACTER


def test_half_a_pair_comes_out_as_it_went_in_and_a_restart_voids_what_was_said() -> None:
    clock, transcript = SystemClock(), Transcript()
    for half in ("\ud83d", "\ude00"):
        transcript.take(Chunk(half, token_count=1), clock)
        transcript.show(half)
    assert (transcript.shown, transcript.anything_shown, transcript.begun) == ("\ud83d\ude00", True, True)
    transcript.begin(ModelCall("m", (said(Role.USER, "?"),), Sampling(), 8), restarted=True)
    assert (transcript.raw, transcript.shown, transcript.anything_shown) == ("", "", False)


@pytest.mark.parametrize(
    ("chunk", "counted"),
    [
        (Chunk("One ", 1), 1),
        (Chunk("word " * 40, 40), 40),
        (Chunk("word " * 40, 4), 45),
        (Chunk(reasoning="word " * 40, token_count=1), 45),
        (Chunk(token_count=1, tools=(ToolDelta(0, "call_1", "look_up", "word " * 40),)), 46),
        (Chunk("", 1, written="word " * 40), 45),
        (Chunk("word " * 400, 1, written="word " * 40), 45),
    ],
    ids=["a token", "a token a piece", "packed", "packed thoughts", "a packed call", "of a form", "of a form, shown"],
)
def test_a_piece_is_a_token_unless_it_says_much_more(chunk: Chunk, counted: int) -> None:
    transcript = Transcript()
    transcript.take(chunk, SystemClock())
    assert (transcript.counted, transcript.written.counted) == (counted, counted)
    transcript.begin(ModelCall("m", (said(Role.USER, "?"),), Sampling(), 8), restarted=False)
    assert (transcript.counted, transcript.written) == (0, Written("", 0))

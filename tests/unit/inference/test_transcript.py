"""What a generation keeps of its text."""

from __future__ import annotations

import tracemalloc

from services.inference.providers.contract import Chunk, ModelCall, Role, Sampling, said
from services.inference.transcript import Transcript
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

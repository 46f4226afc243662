"""The state is a pure fold of the log: any prefix folds to what the live session had there."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from agentnet.common.v1 import failure_pb2, usage_pb2
from agentnet.orchestrator.v1 import event_pb2, input_pb2, progress_pb2, session_pb2, turn_pb2
from services.orchestrator.record import SessionLog
from services.orchestrator.state import SessionState, fold
from tests.support.orchestrator import TENANT, TTL, World

Event = event_pb2.SessionEvent

_sequences = st.integers(min_value=1, max_value=50)
_texts = st.text(max_size=12)
_ids = st.sampled_from(["trn_1", "trn_2"])
_events = st.one_of(
    st.builds(
        lambda turn, attempt, prompt: Event(
            turn_started=event_pb2.TurnStarted(
                turn_id=turn, round=1, agent="Athena@1.0.0", attempt=attempt, prompt=prompt
            )
        ),
        _ids,
        st.integers(1, 3),
        _texts,
    ),
    st.builds(
        lambda turn, text, place: Event(
            tokens_produced=event_pb2.TokensProduced(turn_id=turn, text=text, generation_sequence=place)
        ),
        _ids,
        _texts,
        _sequences,
    ),
    st.builds(
        lambda place: Event(monitor_verdict=event_pb2.MonitorVerdict(rule="pii", generation_sequence=place)), _sequences
    ),
    st.builds(lambda restarted: Event(failed_over=event_pb2.FailedOver(restarted=restarted)), st.booleans()),
    st.builds(
        lambda turn, text, cost: Event(
            turn_finished=event_pb2.TurnFinished(
                turn=turn_pb2.Turn(id=turn, round=1, content=text, cost=usage_pb2.Cost(micros_usd=cost))
            )
        ),
        _ids,
        _texts,
        st.integers(0, 1000),
    ),
    st.builds(
        lambda retryable: Event(
            turn_interrupted=event_pb2.TurnInterrupted(failure=failure_pb2.Failure(retryable=retryable))
        ),
        st.booleans(),
    ),
    st.builds(
        lambda number, alike: Event(round_finished=event_pb2.RoundFinished(round=number, similarity=alike)),
        st.integers(1, 5),
        st.floats(0, 1),
    ),
    st.builds(
        lambda kind, place: Event(signal_received=event_pb2.SignalReceived(signal=kind, signal_id=f"sig_{place}")),
        st.sampled_from(["pause", "resume", "advance", "cancel"]),
        _sequences,
    ),
    st.builds(lambda: Event(session_waiting=event_pb2.SessionWaiting(status=session_pb2.SESSION_STATUS_WAITING))),
    st.builds(lambda count: Event(session_taken_over=event_pb2.SessionTakenOver(takeovers=count)), st.integers(1, 5)),
    st.builds(
        lambda turn, place: Event(
            tool_started=event_pb2.ToolStarted(
                turn_id=turn, call=turn_pb2.ToolCallMade(request_id=f"eff_{place}", tool="search", iteration=1)
            )
        ),
        _ids,
        st.integers(1, 3),
    ),
    st.builds(
        lambda turn, place: Event(
            tool_finished=event_pb2.ToolFinished(
                turn_id=turn,
                call=turn_pb2.ToolCallMade(request_id=f"eff_{place}"),
                outcome=turn_pb2.ToolOutcome(result="found"),
            )
        ),
        _ids,
        st.integers(1, 3),
    ),
    st.builds(
        lambda turn, place: Event(progressed=progress_pb2.Progressed(turn_id=turn, iteration=place)),
        _ids,
        st.integers(1, 3),
    ),
    st.builds(
        lambda turn, place: Event(
            input_requested=event_pb2.InputRequested(
                input_id=f"inp_{place}",
                input=input_pb2.HumanInput(id=f"inp_{place}", turn_id=turn, request_id=f"eff_{place}"),
            )
        ),
        _ids,
        st.integers(1, 3),
    ),
    st.builds(
        lambda place: Event(input_given=event_pb2.InputGiven(input_id=f"inp_{place}", answer="yes")), st.integers(1, 3)
    ),
    st.builds(
        lambda: Event(message_injected=input_pb2.MessageInjected(message_id="sig_9", sender="ada", content="Hm."))
    ),
    st.builds(lambda: Event(checkpoint_saved=event_pb2.CheckpointSaved(checkpoint_id="chk_1"))),
)
_logs = st.lists(_events, max_size=25)


@settings(max_examples=60, deadline=None)
@given(_logs, st.integers(min_value=0, max_value=25))
def test_a_prefix_and_the_rest_fold_to_the_same_state_as_the_whole(events: list[Event], cut: int) -> None:
    for sequence, event in enumerate(events, start=1):
        event.sequence = sequence

    assert fold(fold(SessionState(), events[:cut]), events[cut:]) == fold(SessionState(), events)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(_events, min_size=1, max_size=4)), max_size=8))
def test_whoever_takes_a_session_over_has_the_state_its_owner_had(writes: list[tuple[bool, list[Event]]]) -> None:
    asyncio.run(_hand_over_after_each(writes))


async def _hand_over_after_each(writes: list[tuple[bool, list[Event]]]) -> None:
    world = World()
    await world.start()
    live = await _take(world)
    for committed, events in writes:
        await (live.commit(events) if committed else live.show(events))
        world.clock.advance(TTL * 2)
        successor = await _take(world)

        assert successor.state == live.state

        live = successor


async def _take(world: World) -> SessionLog:
    (lease,) = await world.leases.claim("any", ttl=TTL, limit=1)
    taken = SessionLog(lease, world.store, world.tail, world.clock)
    await taken.load()
    return taken


async def test_every_prefix_of_a_real_session_folds_to_the_state_at_its_end() -> None:
    world = World()
    session_id = await world.start(max_rounds=2)
    await world.drive()
    events = await world.log(session_id)

    states = [fold(SessionState(), events[:end]) for end in range(len(events) + 1)]

    stepwise = SessionState()
    for event, expected in zip(events, states[1:], strict=True):
        stepwise = fold(stepwise, [event])
        assert stepwise == expected
    assert states[-1].session == await world.store.find(TENANT, session_id)


def test_text_before_a_failover_that_starts_anew_is_void() -> None:
    events = [
        Event(turn_started=event_pb2.TurnStarted(turn_id="trn_1")),
        Event(tokens_produced=event_pb2.TokensProduced(turn_id="trn_1", text="void", generation_sequence=2)),
        Event(failed_over=event_pb2.FailedOver(turn_id="trn_1", restarted=True)),
        Event(tokens_produced=event_pb2.TokensProduced(turn_id="trn_1", text="kept", generation_sequence=4)),
    ]

    speaking = fold(SessionState(), events).speaking["trn_1"]

    assert (speaking.text, speaking.heard) == ("kept", 4)

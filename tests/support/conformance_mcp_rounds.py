"""What the published suite of MCP asks of calls in several rounds (revision 2026-07-28): each round asks the client, and the
next call brings its answers and the state, sealed by the official library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp import types
from mcp.server.context import ServerRequestContext

Context = ServerRequestContext[Any, Any]
Asked = types.CallToolRequestParams | types.GetPromptRequestParams
Round = Mapping[str, types.InputRequest]


def form(message: str, **fields: str) -> types.ElicitRequest:
    properties = {name: {"type": kind} for name, kind in fields.items()}
    schema = {"type": "object", "properties": properties, "required": list(fields)}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(prompt: str) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=100))


NAME: Final = form("What is your name?", name="string")
CONFIRM: Final[Round] = {"confirm": form("Please confirm", ok="boolean")}
ROOTS: Final = types.ListRootsRequest()
PREFIX: Final = "test_input_required_result_"
PROMPT: Final = f"{PREFIX}prompt"
TASK: Final = "test_tool_with_task"
ROUNDS: Final[Mapping[str, tuple[Round, ...]]] = {
    f"{PREFIX}elicitation": ({"user_name": NAME},),
    f"{PREFIX}sampling": ({"capital_question": sample("What is the capital of France?")},),
    f"{PREFIX}list_roots": ({"client_roots": ROOTS},),
    f"{PREFIX}request_state": (CONFIRM,),
    f"{PREFIX}tampered_state": (CONFIRM,),
    f"{PREFIX}multiple_inputs": ({"user_name": NAME, "greeting": sample("Generate a greeting"), "client_roots": ROOTS},),
    f"{PREFIX}multi_round": (
        {"step1": form("Step 1: What is your name?", name="string")},
        {"step2": form("Step 2: What is your favorite color?", color="string")},
    ),
    f"{PREFIX}capabilities": ({"user_name": NAME, "greeting": sample("Generate a greeting")},),
    PROMPT: ({"user_context": form("What context should the prompt use?", context="string")},),
    TASK: ({"user_name": NAME},),
}  # fmt: skip
TOOLS: Final = tuple(name for name in ROUNDS if name not in {PROMPT, TASK})
# What a client must be able to do, and what its answer then is.
ABLE: Final[Mapping[type, tuple[types.ClientCapabilities, tuple[type, ...]]]] = {
    types.ElicitRequest: (types.ClientCapabilities(elicitation=types.ElicitationCapability()), (types.ElicitResult,)),
    types.CreateMessageRequest: (
        types.ClientCapabilities(sampling=types.SamplingCapability()),
        (types.CreateMessageResult, types.CreateMessageResultWithTools),
    ),
    types.ListRootsRequest: (types.ClientCapabilities(roots=types.RootsCapability()), (types.ListRootsResult,)),
}


def still(context: Context, asked: Asked) -> types.InputRequiredResult | None:
    """What is asked next; None when everything is answered."""
    rounds, at = ROUNDS[asked.name], int(asked.request_state or 0)
    if _answered(rounds[at], asked.input_responses or {}):
        at += 1
    if at == len(rounds):
        return None
    able = {key: one for key, one in rounds[at].items() if context.session.check_client_capability(ABLE[type(one)][0])}
    return types.InputRequiredResult(input_requests=able, request_state=str(at))


def _answered(wanted: Round, given: types.InputResponses) -> bool:
    return all(isinstance(given.get(key), ABLE[type(one)][1]) for key, one in wanted.items())


def told(asked: Asked) -> str:
    """The answers, as a result tells them; whose state was sealed, so it came back as it was."""
    said = {
        key: answer.model_dump(mode="json", exclude_none=True) for key, answer in (asked.input_responses or {}).items()
    }
    return f"state-ok {said}" if asked.request_state else f"answered {said}"

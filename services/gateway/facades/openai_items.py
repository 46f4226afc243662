"""What a response of OpenAI's puts out: texts, calls of the caller's functions, and calls of the mesh's tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Event = tuple[str, Mapping[str, Any]]
# The letters an item's id begins with, by its type.
_LETTERS: Final = {
    "message": "msg", "function_call": "fc", "mcp_call": "mcp", "mcp_approval_request": "mcpr",
    "mcp_list_tools": "mcpl",
}  # fmt: skip


@dataclass(slots=True)
class Output:
    """One item, and how it is told. `id` is made of the response's own, so that it is the same whoever reads it."""

    kind: str
    response_id: str
    place: int
    text: str = ""
    """What is said, or a call's arguments."""
    call_id: str = ""
    name: str = ""
    label: str = ""
    approved: str = ""
    """The approval it runs on; empty: none was needed."""
    result: str | None = None
    failure: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    open: bool = False
    closed: bool = False

    @property
    def id(self) -> str:
        number = f"_{self.place}" if self.place else ""
        return f"{_LETTERS[self.kind]}_{self.response_id.partition('_')[2]}{number}"

    def item(self, *, done: bool) -> Mapping[str, Any]:
        """As it is listed; while it is not done, without its content."""
        status = "completed" if done else "in_progress"
        arguments = self.text if done else ""
        head = {"id": self.id, "type": self.kind}
        match self.kind:
            case "message":
                content = [self.part()] if done else []
                return {**head, "status": status, "role": "assistant", "content": content}
            case "function_call":
                return {**head, "status": status, "call_id": self.call_id, "name": self.name, "arguments": arguments}
            case "mcp_list_tools":
                return {**head, "server_label": self.label, "tools": list(self.tools) if done else [], "error": None}
        called = {**head, "server_label": self.label, "name": self.name, "arguments": arguments}
        if self.kind == "mcp_approval_request":
            return called
        failed = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": self.failure}]}
        ended = "failed" if self.failure else "completed"
        return {
            **called,
            "status": ended if done else "in_progress",
            "output": self.result if done else None,
            "error": failed if done and self.failure else None,
            "approval_request_id": self.approved or None,
        }

    def part(self) -> Mapping[str, Any]:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def opened(self, index: int) -> Iterator[Event]:
        """That it begins; an approval is asked for in one piece, when the call is whole."""
        if self.kind == "mcp_approval_request":
            return
        yield "response.output_item.added", {"output_index": index, "item": self.item(done=False)}
        place = {"item_id": self.id, "output_index": index}
        if self.kind == "message":
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield "response.content_part.added", {**place, "content_index": 0, "part": part}
        elif self.kind.startswith("mcp_"):
            yield f"response.{self.kind}.in_progress", place

    def grown(self, index: int, piece: str) -> Iterator[Event]:
        place = {"item_id": self.id, "output_index": index}
        match self.kind:
            case "message":
                yield "response.output_text.delta", {**place, "content_index": 0, "delta": piece, "logprobs": []}
            case "function_call":
                yield "response.function_call_arguments.delta", {**place, "delta": piece}
            case "mcp_call":
                yield "response.mcp_call_arguments.delta", {**place, "delta": piece}

    def done(self, index: int) -> Iterator[Event]:
        """That nothing more comes."""
        place = {"item_id": self.id, "output_index": index}
        match self.kind:
            case "message":
                yield "response.output_text.done", {**place, "content_index": 0, "text": self.text, "logprobs": []}
                yield "response.content_part.done", {**place, "content_index": 0, "part": self.part()}
            case "function_call":
                written = {"name": self.name, "arguments": self.text}
                yield "response.function_call_arguments.done", {**place, **written}
            case "mcp_call":
                yield "response.mcp_call_arguments.done", {**place, "arguments": self.text}
                yield f"response.mcp_call.{'failed' if self.failure else 'completed'}", place
            case "mcp_list_tools":
                yield "response.mcp_list_tools.completed", place
            case "mcp_approval_request":
                yield "response.output_item.added", {"output_index": index, "item": self.item(done=True)}
        yield "response.output_item.done", {"output_index": index, "item": self.item(done=True)}

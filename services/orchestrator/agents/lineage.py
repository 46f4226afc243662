"""Whom a run is for, where a chain handed over: what its money is accounted to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format

from agentnet.orchestrator.v1 import session_pb2, task_graph_pb2

# The part of a session's metadata that tells of its chain.
KEY: Final = "chain"
_PATH: Final = 255


def sub_agent(
    session: session_pb2.Session, nodes: Mapping[str, task_graph_pb2.TaskNode], node_id: str, agent: str
) -> str:
    """The path of a chain to one of its steps, as `Athena@1.0.0/Apollo@1.0.0`; of other runs that of the delegation, or
    else the node, as `Athena@1.0.0/draft`.
    """
    if KEY not in session.metadata:
        return session.delegated.sub_agent or f"{agent}/{node_id}"[-_PATH:]
    note: dict[str, Any] = json_format.MessageToDict(session.metadata)[KEY]
    sources = {step["id"]: step["source"] for step in note["steps"]}
    path, place = [agent], sources.get(node_id, "")
    while place:
        path.insert(0, nodes[place].agent)
        place = sources[place]
    return "/".join(path)[-_PATH:] if len(path) > 1 else ""

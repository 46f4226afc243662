"""What a graph says about itself is shown as it is, whatever signs it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from agentnet.cli import graphs
from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2


def test_a_failure_that_looks_like_markup_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Console(record=True, width=200)
    monkeypatch.setattr(graphs, "out", shown)
    failure = failure_pb2.Failure(message="expected [/] at $.items[0]")
    session = session_pb2.Session(status="SESSION_STATUS_FAILED", failure=failure)
    event = event_pb2.SessionEvent(session_finished=event_pb2.SessionFinished(session=session))
    assert graphs._tell(event)
    assert "expected [/] at $.items[0]" in shown.export_text()


def test_a_file_that_is_no_graph_is_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "[red]graph.yaml"
    file.write_text("nodes: [[/]]")
    result = CliRunner().invoke(graphs.graph, ["run", str(file)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)

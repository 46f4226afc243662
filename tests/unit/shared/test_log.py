"""Logs: JSON lines with the ids of the call, without secrets."""

from __future__ import annotations

import json
import logging

import pytest
from structlog.contextvars import clear_contextvars

from shared.log import bind_call, configure, log


@pytest.fixture(autouse=True)
def clean():
    yield
    clear_contextvars()
    logging.getLogger().handlers[:] = []


def test_a_log_line_is_json_with_the_sessions_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure("cost", "INFO")
    bind_call(request_id="req-1", session_id="ses-1")
    log.info("run.finished", steps=3)
    log.debug("not shown")
    (line,) = capsys.readouterr().out.splitlines()
    event = json.loads(line)
    assert (event["event"], event["steps"], event["level"], event["service"]) == ("run.finished", 3, "info", "cost")
    assert (event["correlation_id"], event["request_id"]) == ("ses-1", "req-1")


def test_what_is_named_like_a_secret_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure("cost", "INFO")
    log.info("made", api_key="ank.t.k.s", password="hunter2", input_tokens=5)
    event = json.loads(capsys.readouterr().out)
    assert (event["api_key"], event["password"], event["input_tokens"]) == ("[redacted]", "[redacted]", 5)


def test_the_last_configuration_holds(capsys: pytest.CaptureFixture[str]) -> None:
    configure("cost", "INFO")
    log.info("first")
    configure("policy", "WARNING")
    log.info("not shown")
    log.warning("second")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["service"], line["event"], line["level"]) for line in lines] == [
        ("cost", "first", "info"),
        ("policy", "second", "warning"),
    ]

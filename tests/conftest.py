"""A server that tests share and that has died ends the run: each test after it would wait for its time-outs."""

from __future__ import annotations

import pytest

from tests.support.lives import death


def pytest_runtest_setup(item: pytest.Item) -> None:
    if why := death():
        item.session.shouldstop = why
        pytest.fail(why, pytrace=False)

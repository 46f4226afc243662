"""`python -m services.orchestrator`."""

from __future__ import annotations

from services.orchestrator.main import main

main()

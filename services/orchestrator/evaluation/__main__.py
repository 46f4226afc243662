"""`python -m services.orchestrator.evaluation`."""

from __future__ import annotations

from services.orchestrator.evaluation.main import main

if __name__ == "__main__":
    main()

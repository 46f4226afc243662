"""`python -m services.cost`."""

from __future__ import annotations

from services.cost.main import main

main()

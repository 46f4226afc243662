"""`python -m services.memory`."""

from __future__ import annotations

from services.memory.main import main

main()

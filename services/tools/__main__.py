"""`python -m services.tools`."""

from __future__ import annotations

from services.tools.main import main

main()

"""`python -m services.inference`."""

from __future__ import annotations

from services.inference.main import main

main()

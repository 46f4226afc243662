"""`python -m services.policy`."""

from __future__ import annotations

from services.policy.main import main

main()

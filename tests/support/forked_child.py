"""Says what it was told, then ends at once or when it is told to."""

from __future__ import annotations

import os
import signal

print(os.environ["TOLD"], sorted(os.environ), flush=True)
if os.environ["TOLD"] == "stay":
    signal.pause()

"""Starts a program that dies with its parent: `child.py <pid of the parent> <signal> <program> <arguments>`."""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, signal, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal))
    if os.getppid() != int(parent):  # it died before the line above
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - replacing this process is the point


if __name__ == "__main__":
    main()

"""The step before bubblewrap where root starts it: from here on the sandbox is no longer root.

Python may be installed where only root can walk to (/root/.pyenv). In a mount namespace of its own this program opens
the way to what the sandbox shows, and to nothing else; then it becomes another user and bubblewrap.
"""

from __future__ import annotations

import ctypes
import os
import sys

_CLONE_NEWNS = 0x00020000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
_WALK = 0o001
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    cut = sys.argv.index("--")
    uid, paths, command = int(sys.argv[1]), sys.argv[2:cut], sys.argv[cut + 1 :]
    _must(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    _open(paths)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execv(command[0], command)  # noqa: S606 - bubblewrap, by its path


def _open(paths: list[str]) -> None:
    behind = {path: door for path in paths if (door := _closed_door(path))}
    held = {path: os.open(path, os.O_PATH) for path in behind}
    for door in dict.fromkeys(behind.values()):
        _mount("tmpfs", door, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=65536")
    for path, descriptor in held.items():
        _place(path, folder=os.path.isdir(f"/proc/self/fd/{descriptor}"))  # noqa: PTH112 - pathlib is slow to import
        _mount(f"/proc/self/fd/{descriptor}", path, None, _MS_BIND | _MS_REC, None)
        os.close(descriptor)


def _closed_door(path: str) -> str | None:
    """The first folder on the way that not everyone may walk through."""
    parts = path.split("/")[1:-1]
    ways = ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]
    return next((way for way in ways if not os.stat(way).st_mode & _WALK), None)  # noqa: PTH116


def _place(path: str, *, folder: bool) -> None:
    if os.path.lexists(path):  # inside a folder that is there already
        return
    os.makedirs(path if folder else os.path.dirname(path), mode=0o755, exist_ok=True)  # noqa: PTH103, PTH120
    if not folder:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    _must(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def _must(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


if __name__ == "__main__":
    main()

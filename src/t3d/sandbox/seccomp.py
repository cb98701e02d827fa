"""The system calls that a tested program may not make, as a seccomp filter (classic BPF).

The filter refuses with EPERM what a program under test has no use for and the other walls may not stop:
new processes (threads are allowed), sockets, signals to anyone, changing other processes, memory that no
limit counts, and metadata of files, which Landlock leaves alone. It holds for the rest of the process's life.
"""

import errno
import platform
import struct

CLONE_THREAD = 0x10000
AUDIT_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000
"""Set in the numbers of x86-64's second set of system calls, which is refused as a whole."""

# Name, number on x86_64 and number on aarch64; - where the architecture has no such call.
_TABLE = """
    # new processes
    fork 57 -; vfork 58 -; execve 59 221; execveat 322 281;
    # network, and all that the one socket of a program's could do beside reading and writing
    socket 41 198; socketpair 53 199; bind 49 200; listen 50 201; accept 43 202; accept4 288 242;
    connect 42 203; setsockopt 54 208; shutdown 48 210; sendmsg 46 211; recvmsg 47 212; recvmmsg 299 243;
    sendmmsg 307 269;
    # other processes
    kill 62 129; tkill 200 130; tgkill 234 131; rt_sigqueueinfo 129 138; rt_tgsigqueueinfo 297 240;
    pidfd_send_signal 424 424; pidfd_open 434 434; pidfd_getfd 438 438; ptrace 101 117;
    process_vm_readv 310 270; process_vm_writev 311 271; process_madvise 440 440; kcmp 312 272;
    setpriority 141 140; sched_setparam 142 118; sched_setscheduler 144 119; sched_setaffinity 203 122;
    sched_setattr 314 274; ioprio_set 251 30; migrate_pages 256 238; move_pages 279 239;
    # memory that no limit counts
    memfd_create 319 279; memfd_secret 447 447;
    # memory, queues and semaphores that processes share; their numbers can be guessed
    shmget 29 194; shmat 30 196; shmctl 31 195; msgget 68 186; msgsnd 69 189; msgrcv 70 188; msgctl 71 187;
    semget 64 190; semop 65 193; semctl 66 191; semtimedop 220 192; mq_open 240 180; mq_unlink 241 181;
    # what all processes, or all of a user's, share
    io_setup 206 0; inotify_init 253 -; inotify_init1 294 26; sync 162 81; syncfs 306 267;
    # metadata of files
    chmod 90 -; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452; chown 92 -; fchown 93 55; lchown 94 -;
    fchownat 260 54; utime 132 -; utimes 235 -; futimesat 261 -; utimensat 280 88; setxattr 188 5;
    lsetxattr 189 6; fsetxattr 190 7; removexattr 197 14; lremovexattr 198 15; fremovexattr 199 16;
    getxattr 191 8; lgetxattr 192 9; fgetxattr 193 10; listxattr 194 11; llistxattr 195 12; flistxattr 196 13;
    setxattrat 463 463; getxattrat 464 464; listxattrat 465 465; removexattrat 466 466; file_setattr 469 469;
    quotactl 179 60; quotactl_fd 443 443;
    # kernel
    bpf 321 280; perf_event_open 298 241; userfaultfd 323 282; io_uring_setup 425 425;
    io_uring_enter 426 426; io_uring_register 427 427; unshare 272 97; setns 308 268; mount 165 40;
    umount2 166 39; pivot_root 155 41; chroot 161 51; open_tree 428 428; move_mount 429 429; fsopen 430 430;
    fsconfig 431 431; fsmount 432 432; fspick 433 433; mount_setattr 442 442; keyctl 250 219;
    add_key 248 217; request_key 249 218; name_to_handle_at 303 264; open_by_handle_at 304 265;
    fanotify_init 300 262; statmount 457 457; listmount 458 458; syslog 103 116;
"""


def _calls(table: str) -> dict[str, tuple[int, int | None]]:
    rows = " ".join(line for line in table.splitlines() if "#" not in line)
    names = (entry.split() for entry in rows.split(";") if entry.strip())
    return {name: (int(x86_64), None if aarch64 == "-" else int(aarch64)) for name, x86_64, aarch64 in names}


REFUSED = _calls(_TABLE)

CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
PRLIMIT = {"x86_64": 302, "aarch64": 261}
PRCTL = {"x86_64": 157, "aarch64": 167}
SET_DEATH_SIGNAL = 1  # by which a program would outlive a killed grader
GETSOCKOPT = {"x86_64": 55, "aarch64": 209}
PEER = 77  # SO_PEERPIDFD: a descriptor of the process that made the socket
# Calls of which some commands (the second argument) are refused, or all but some.
FCNTL = {"x86_64": 72, "aarch64": 25}
REFUSED_COMMANDS = (8, 10, 15, 1024)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: the kernel then signals another process; F_SETLEASE makes others wait."""
IOCTL = {"x86_64": 16, "aarch64": 29}
ALLOWED_IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what Python's own functions ask for.
Others change files that are open for reading alone, their flags say, and every driver has some of its own."""

LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, JUMP_IF_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCH_AT = 0, 4
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
REFUSE = 0x00050000 | errno.EPERM
UNKNOWN_CALL = 0x00050000 | errno.ENOSYS  # the C library then tries the older call


def _argument_at(index: int) -> int:
    """Offset of an argument's lower half; both architectures are little-endian."""
    return 16 + 8 * index


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """The filter for this machine's architecture, or None where its numbers are not known here."""
    machine = machine or platform.machine()
    if machine not in AUDIT_ARCHES:
        return None
    column = list(AUDIT_ARCHES).index(machine)
    program = [
        (LOAD_WORD, 0, 0, ARCH_AT),
        (JUMP_IF_EQUAL, 1, 0, AUDIT_ARCHES[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD_WORD, 0, 0, NUMBER_AT),
        (JUMP_IF_EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, UNKNOWN_CALL),
        (JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, UNKNOWN_CALL),
    ]
    refuse, allow = (RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)
    program += _when(CLONE[machine], 0, [(JUMP_IF_ANY_BIT, 0, 1, CLONE_THREAD), allow, refuse])
    program += _when(PRLIMIT[machine], 0, [(JUMP_IF_EQUAL, 0, 1, 0), allow, refuse])  # 0 is the caller
    program += _when(PRCTL[machine], 0, [(JUMP_IF_EQUAL, 0, 1, SET_DEATH_SIGNAL), refuse, allow])
    program += _when(GETSOCKOPT[machine], 2, [(JUMP_IF_EQUAL, 0, 1, PEER), refuse, allow])
    for number, commands, then, otherwise in (
        (FCNTL[machine], REFUSED_COMMANDS, refuse, allow),
        (IOCTL[machine], ALLOWED_IOCTLS, allow, refuse),
    ):
        checks = [step for command in commands for step in ((JUMP_IF_EQUAL, 0, 1, command), then)]
        program += _when(number, 1, [*checks, otherwise])
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            program += [(JUMP_IF_EQUAL, 0, 1, number), refuse]
    return b"".join(struct.pack("=HBBI", *step) for step in [*program, allow])


def _when(
    number: int, argument: int, steps: list[tuple[int, int, int, int]]
) -> list[tuple[int, int, int, int]]:
    """Steps for one system call, which see that argument and end by returning."""
    return [
        (JUMP_IF_EQUAL, 0, 1 + len(steps), number),
        (LOAD_WORD, 0, 0, _argument_at(argument)),
        *steps,
    ]

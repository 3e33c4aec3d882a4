"""Run a program that ends when its parent does: `python -I -S leash.py [--reap] SIGNAL PARENT CMD`.

A script of its own, not a `preexec_fn`: code between fork and exec is unsafe in a process with
threads, and gRPC and pytest plugins have threads. The kernel keeps both settings across exec.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> None:
    """Bind this process to its parent and become the command; does not return."""
    reap = arguments[0] == "--reap"
    signal_number, parent, *command = arguments[1 if reap else 0 :]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
    if reap:
        # Grandchildren whose parent died come to this process: its tree stays whole, so that
        # whoever stops it can find all of it.
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if int(parent) and os.getppid() != int(parent):
        sys.exit("leash: the parent ended before its child began")
    os.execvp(command[0], command)  # noqa: S606 - becoming the command is the purpose


if __name__ == "__main__":
    main(sys.argv[1:])

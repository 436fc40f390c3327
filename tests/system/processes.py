"""Finding and holding the processes of one command, by pid and never by name alone."""

import contextlib
import os
import signal

import psutil


def descendants(pid, title):
    """Return processes below pid whose command line begins with title."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process)
    return found


@contextlib.contextmanager
def stopped(pid):
    """Hold a process with SIGSTOP."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def wait_for_actor(installation, command, name):
    """Wait for an actor's process below a running command; return its pid."""

    def look():
        assert command.poll() is None, command.communicate()
        found = descendants(command.pid, f"ray::{name}")
        return found[0].pid if found else None

    return installation.wait(look)

"""Parent of one embedded server; run as a file by `server.py`, never imported.

    python -I -S watchdog.py STOP_SIGNAL LOG LOCK_FD COMMAND...

Standard input is a pipe whose other end only the starter holds. Each byte read is a signal for the server;
end of file means that the starter let go or died, even by SIGKILL, and the server is stopped in order.
Standard output says the server's process id, then a line for each signal that has had its effect.

It is a file of its own so that it imports next to nothing: there is one per server, for as long as it runs.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

STARTER = 0
# Seconds for an orderly stop, then for an abrupt one (SIGQUIT, which PostgreSQL knows as "immediate").
PATIENCE = ((None, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


def stop(server: subprocess.Popen[bytes], in_order: signal.Signals) -> None:
    """End the server: by its own signal for an orderly stop, by harder ones if it does not listen."""
    for harder, patience in PATIENCE:
        server.send_signal(harder or in_order)
        server.send_signal(signal.SIGCONT)  # one that was stopped by SIGSTOP hears nothing else
        try:
            server.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return


def main(in_order: signal.Signals, log: str, lock: int, command: list[str]) -> None:
    """Start the server, say its process id, then wait for its end or the starter's."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    ended = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    for number in (signal.SIGCHLD, *ended):
        signal.signal(number, lambda *_: None)  # the number arrives through the wake-up pipe

    with open(log, "ab") as out:  # noqa: PTH123 - pathlib would be most of this process's imports
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(lock,))
    print(server.pid, flush=True)  # noqa: T201 - this is how the starter learns it
    while server.poll() is None:
        readable, _, _ = select.select([STARTER, woken], [], [])
        if woken in readable and ended.intersection(os.read(woken, 64)):
            return stop(server, in_order)
        if STARTER in readable:
            signals = os.read(STARTER, 64)
            if not signals:
                return stop(server, in_order)
            for each in signals:
                server.send_signal(each)
                if each == signal.SIGSTOP:  # it is only on its way: the server may go on for a moment
                    os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                print(each, flush=True)  # noqa: T201 - the starter waits for it
    return None


if __name__ == "__main__":
    os.umask(0o077)
    main(signal.Signals(int(sys.argv[1])), sys.argv[2], int(sys.argv[3]), sys.argv[4:])

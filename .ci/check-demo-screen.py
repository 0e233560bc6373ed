"""Runs `haar demo` on a terminal of its own (a pseudo terminal), presses the key that makes a spike,
waits for the alert, makes the terminal smaller, and ends it in the ways in which people end it.
Every page must fit the terminal, and the terminal must be as it was before. Nothing is waited for
without an end, and no demo is left behind."""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

HAAR = os.path.abspath(sys.argv[1])
TIME = 180  # for everything of one run, seconds
STOP_TIME = 20  # for the demo to end in order, when the check has failed


class Terminal:
    """Runs the demo, and shows what stands on its terminal. Knows the sequences that it writes."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.end = time.monotonic() + TIME
        self.pending, self.lines, self.all = "", {}, ""
        self.row = self.column = 1
        self.is_page, self.beyond = False, None
        self.code = None  # what it ended with
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.process, self.file = pty.fork()
        if self.process == 0:
            os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8")
            os.environ.pop("NO_COLOR", None)
            os.execv(HAAR, [HAAR, "demo"])
        self.resize(rows, columns)
        self.modes = termios.tcgetattr(self.file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """The demo ends with the check: in order when it can, so that its own processes do so, too."""
        for number in [signal.SIGTERM, signal.SIGKILL]:
            if not self.has_ended():
                os.kill(self.process, number)
                self.wait_end(time.monotonic() + STOP_TIME)

    def has_ended(self):
        if self.code is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process != 0:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait_end(self, end):
        """Waits until then for the end of the demo; false when it goes on."""
        while not self.has_ended() and time.monotonic() < end:
            self.read()  # a terminal that nobody reads would hold it
            time.sleep(0.05)
        return self.has_ended()

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.lines = {}

    def press(self, keys):
        os.write(self.file, keys)

    def read(self):
        """Takes in what was written; false at the end."""
        if not select.select([self.file], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self.file, 1 << 16)
        except OSError:
            return False
        text = self.decoder.decode(data)
        self.all += text
        self.pending += text
        while token := re.match(r"\x1b\[([?0-9;]*)([A-Za-z])|[^\x1b]|\x1b(?=[^\[])", self.pending):
            self.pending = self.pending[token.end() :]
            self.take(token)
        return bool(data)

    def take(self, token):
        arguments, command = token.group(1), token.group(2)
        if command is None:
            if self.is_page:
                self.put(token.group(0))
        elif command == "H":
            self.row, self.column = (int(part) for part in arguments.split(";"))
        elif command == "K":
            self.lines[self.row] = ""
        elif arguments == "?1049" and command in "hl":
            self.is_page = command == "h"

    def put(self, sign):
        # A page that is drawn for the size before may come after a change of the size.
        if self.row <= self.rows and self.column <= self.columns:
            self.lines[self.row] = self.lines.get(self.row, "") + sign
        else:
            self.beyond = (self.row, self.column)
        self.column += 1

    def text(self):
        return "\n".join(self.lines.get(row, "") for row in range(1, self.rows + 1))

    def wait(self, what, holds):
        while not holds():
            if time.monotonic() > self.end:
                sys.exit(f"{what} did not come in time; the terminal shows:\n{self.text()}")
            if not self.read():
                sys.exit(f"the demo ended before {what} came:\n{self.all}")

    def wait_page(self):
        self.wait("the page", lambda: self.is_page and "ALERTS" in self.text() and "[q] quit" in self.text())
        self.beyond = None
        assert not self.local_modes() & termios.ICANON, "keys need Enter"

    def local_modes(self):
        return termios.tcgetattr(self.file)[3]

    def finish(self, code):
        """Waits for the end of the demo, which must leave the terminal as it was."""
        self.wait("the end of the page", lambda: not self.is_page)
        modes = termios.tcgetattr(self.file)
        while self.read():
            if time.monotonic() > self.end:
                sys.exit(f"the demo does not end:\n{self.all[-2000:]}")
        if not self.wait_end(self.end):
            sys.exit(f"the demo has left its terminal and does not end:\n{self.all[-2000:]}")
        assert self.code == code, f"it ended with {self.code}, not with {code}:\n{self.all[-2000:]}"
        assert modes == self.modes, "the terminal has other modes than before"
        after = self.all[self.all.rindex("\x1b[?1049l") :]
        assert self.all.rindex("\x1b[?25h") > self.all.rindex("\x1b[?25l"), "the cursor is gone"
        assert "\x1b[?1049h" not in after
        return after


def spike_and_quit():
    with Terminal(24, 80) as demo:
        demo.wait_page()
        demo.press(b"s")
        is_alert = re.compile(r"^! .* (ago|now)  sensor +(.*; )?load is ", re.MULTILINE)
        demo.wait("an alert", lambda: is_alert.search(demo.text()))
        # The sampler has a new configuration, and is not counted until its node has said so.
        parts = ["5 of 5 run", "NODE", "MICROSERVICE", "ROUTE", "[s] spike", "█"]
        demo.wait(f"a page with {parts}", lambda: all(part in demo.text() for part in parts))
        shown = demo.text()
        assert "\x1b[31m" in demo.all, "nothing is red"
        assert demo.beyond is None, f"something is written beyond the terminal, at {demo.beyond}:\n{shown}"
        demo.resize(20, 60)
        demo.wait("a smaller page", lambda: "[q] quit" in demo.lines.get(20, ""))
        demo.beyond = None
        demo.lines = {}
        demo.wait("another one", lambda: "[q] quit" in demo.lines.get(20, ""))
        # All three that have room may be values that are back: those have no sign.
        is_any = re.compile(r"^[! ] +(now|.* ago)  \S+ .* is ", re.MULTILINE)
        demo.wait("a small page with alerts", lambda: is_any.search(demo.text()) and "NODE" in demo.text())
        assert demo.beyond is None, f"something is written beyond the terminal, at {demo.beyond}"
        demo.press(b"q")
        after = demo.finish(0)
        assert ", usually " in after, f"no alert is in what remains:\n{after}"
        return shown


def end_by(send):
    with Terminal(24, 80) as demo:
        demo.wait_page()
        send(demo)
        demo.finish(0)


# What ends this check ends its demo: see `Terminal.__exit__`.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("the check was told to end"))
print(spike_and_quit())
end_by(lambda demo: demo.press(b"\x03"))
end_by(lambda demo: os.kill(demo.process, signal.SIGTERM))
print("the demo on a terminal: as it should be")

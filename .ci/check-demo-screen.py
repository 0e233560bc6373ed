"""Runs `haar demo` on a terminal of its own (a pseudo terminal), presses the key that makes a spike,
waits for the alert, makes the terminal smaller, and ends it in the ways in which people end it.
Every page must fit the terminal, and the terminal must be as it was before."""

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


class Terminal:
    """Runs the demo, and shows what stands on its terminal. Knows the sequences that it writes."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.end = time.monotonic() + TIME
        self.pending, self.lines, self.all = "", {}, ""
        self.row = self.column = 1
        self.is_page, self.beyond = False, None
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.process, self.file = pty.fork()
        if self.process == 0:
            os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8")
            os.environ.pop("NO_COLOR", None)
            os.execv(HAAR, [HAAR, "demo"])
        self.resize(rows, columns)
        self.modes = termios.tcgetattr(self.file)

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
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        assert status == code, f"it ended with {status}, not with {code}:\n{self.all[-2000:]}"
        assert modes == self.modes, "the terminal has other modes than before"
        after = self.all[self.all.rindex("\x1b[?1049l") :]
        assert self.all.rindex("\x1b[?25h") > self.all.rindex("\x1b[?25l"), "the cursor is gone"
        assert "\x1b[?1049h" not in after
        return after


def spike_and_quit():
    demo = Terminal(24, 80)
    demo.wait_page()
    demo.press(b"s")
    is_alert = re.compile(r"^! .* ago  sensor +load is ", re.MULTILINE)
    demo.wait("an alert", lambda: is_alert.search(demo.text()))
    shown = demo.text()
    for part in ["5 of 5 run", "NODE", "MICROSERVICE", "ROUTE", "[s] spike"]:
        assert part in shown, f"{part} is not on the page:\n{shown}"
    assert "█" in shown, f"there is no graph:\n{shown}"
    assert "\x1b[31m" in demo.all, "nothing is red"
    assert demo.beyond is None, f"something is written beyond the terminal, at {demo.beyond}:\n{shown}"
    demo.resize(20, 60)
    demo.wait("a smaller page", lambda: "[q] quit" in demo.lines.get(20, ""))
    demo.beyond = None
    demo.lines = {}
    demo.wait("another one", lambda: "[q] quit" in demo.lines.get(20, ""))
    assert "! " in demo.text() and "NODE" in demo.text(), demo.text()
    assert demo.beyond is None, f"something is written beyond the terminal, at {demo.beyond}"
    demo.press(b"q")
    after = demo.finish(0)
    assert "load is" in after, f"the alert is not in what remains:\n{after}"
    return shown


def end_by(send):
    demo = Terminal(24, 80)
    demo.wait_page()
    send(demo)
    demo.finish(0)


print(spike_and_quit())
end_by(lambda demo: demo.press(b"\x03"))
end_by(lambda demo: os.kill(demo.process, signal.SIGTERM))
print("the demo on a terminal: as it should be")

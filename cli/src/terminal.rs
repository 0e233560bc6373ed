//! The terminal while pages are drawn on it: a screen of its own, no cursor, keys without Enter.
//! It is given back when [`Screen`] is dropped, by a panic, and when a second signal ends the
//! process; what stood on it before is there again.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::{config, interrupt, output};

/// Another screen, without a cursor (xterm's private modes 1049 and 25).
const BEGIN: &str = "\u{1b}[?1049h\u{1b}[?25l";
const END: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// Around what is to appear at once; terminals that do not know it pass over it (private mode 2026).
const BEGIN_PAGE: &str = "\u{1b}[?2026h";
const END_PAGE: &str = "\u{1b}[?2026l";

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// What happened while we waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A key was pressed.
    Key(char),
    /// The terminal has another size.
    Resized,
    /// The time is over.
    Time,
}

/// What must be put back. Taken for a moment by whoever takes or gives back the terminal.
static BEFORE: Mutex<Option<keys::Modes>> = Mutex::new(None);

/// The terminal, in our hands.
pub(crate) struct Screen {
    /// The size of the last page.
    drawn: Size,
    has_keys: bool,
}

impl Screen {
    /// Takes the terminal over; none where pages can't be drawn.
    pub(crate) fn take() -> Result<Option<Self>> {
        let can_draw = io::stdout().is_terminal() && !config::is_dumb_terminal();
        if !can_draw || keys::is_in_background() {
            return Ok(None);
        }
        restore_on_panic();
        let modes = keys::Modes::take();
        let has_keys = modes.has_keys();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(modes);
        let screen = Self {
            drawn: size(),
            has_keys,
        };
        output::text(BEGIN)?;
        Ok(Some(screen))
    }

    /// Whether somebody can press keys.
    pub(crate) fn has_keys(&self) -> bool {
        self.has_keys
    }

    /// Draws what `page` makes for the size that the terminal has now.
    pub(crate) fn draw(&mut self, page: impl FnOnce(Size) -> Vec<String>) -> Result<()> {
        use std::fmt::Write as _;
        self.drawn = size();
        let mut text = String::from(BEGIN_PAGE);
        let lines = page(self.drawn);
        for row in 0..self.drawn.rows {
            let line = lines.get(row).map_or("", String::as_str);
            // A row is cleared before it is written: after its last column the cursor stands on it.
            let _ = write!(text, "\u{1b}[{};1H\u{1b}[2K{line}", row + 1); // never fails
        }
        text.push_str(END_PAGE);
        output::text(&text)
    }

    /// Waits for a key, another size or the end of `time`; an error when we are asked to end.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<Event> {
        let end = Instant::now() + time;
        loop {
            interrupt::check()?;
            if size() != self.drawn {
                return Ok(Event::Resized);
            }
            let left = end.saturating_duration_since(Instant::now());
            if !self.has_keys {
                std::thread::sleep(left.min(interrupt::POLL));
            } else {
                match keys::next(left.min(interrupt::POLL)) {
                    keys::Next::Key(key) => return Ok(Event::Key(key)),
                    keys::Next::Nothing => {}
                    keys::Next::End => self.has_keys = false,
                }
            }
            if left.is_zero() {
                return Ok(Event::Time);
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Puts everything back, when it was taken.
pub(crate) fn give_back() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(modes) = before {
        modes.put_back();
        // A terminal that is gone needs nothing back.
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(END.as_bytes());
        let _ = stdout.flush();
    }
}

/// A panic says why on the screen that stays.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            report(panic);
        }));
    });
}

fn size() -> Size {
    let (rows, columns) = console::Term::stdout().size();
    Size {
        rows: rows.into(),
        columns: columns.into(),
    }
}

/// Keys without Enter and echo, by termios(3). Ctrl-C stays a signal; the keys that would stop or
/// kill us with the terminal in our hands do nothing.
#[cfg(unix)]
mod keys {
    use std::io;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::termios::{
        self, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios,
    };

    const ESCAPE: u8 = 0x1b;

    /// How stdin was before; none when it is no terminal.
    pub(super) struct Modes(Option<Termios>);

    impl Modes {
        /// Has keys come without Enter and echo from now on, where there are keys.
        pub(super) fn take() -> Self {
            let stdin = io::stdin();
            let before = termios::tcgetattr(&stdin).ok();
            Self(before.filter(|before| {
                termios::tcsetattr(&stdin, OptionalActions::Now, &without_enter(before)).is_ok()
            }))
        }

        pub(super) fn has_keys(&self) -> bool {
            self.0.is_some()
        }

        pub(super) fn put_back(&self) {
            if let Some(before) = &self.0 {
                let stdin = io::stdin();
                let _ = termios::tcsetattr(&stdin, OptionalActions::Now, before);
                // What was typed and not read is no command for the shell.
                let _ = termios::tcflush(&stdin, QueueSelector::IFlush);
            }
        }
    }

    /// True when the terminal belongs to another job: taking it would stop us.
    pub(super) fn is_in_background() -> bool {
        termios::tcgetpgrp(io::stdout())
            .is_ok_and(|foreground| foreground != rustix::process::getpgrp())
    }

    fn without_enter(before: &Termios) -> Termios {
        const DISABLED: u8 = 0; // _POSIX_VDISABLE of Linux
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        modes.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
        modes.special_codes[SpecialCodeIndex::VQUIT] = DISABLED;
        modes
    }

    /// What comes from stdin.
    pub(super) enum Next {
        Key(char),
        Nothing,
        End,
    }

    /// The next key, within `time`.
    pub(super) fn next(time: Duration) -> Next {
        let stdin = io::stdin();
        let mut wanted = [PollFd::new(&stdin, PollFlags::IN)];
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        match poll(&mut wanted, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Next::Nothing,
            Ok(_) => {}
            Err(_) => return Next::End,
        }
        let mut typed = [0_u8];
        match rustix::io::read(&stdin, &mut typed) {
            Ok(0) | Err(_) => Next::End,
            Ok(_) if typed[0] == ESCAPE => {
                // An arrow or the like: the bytes behind the escape are no keys of ours.
                let _ = termios::tcflush(&stdin, QueueSelector::IFlush);
                Next::Nothing
            }
            Ok(_) => Next::Key(typed[0].into()),
        }
    }
}

/// No keys: pages are drawn all the same.
#[cfg(not(unix))]
mod keys {
    use std::time::Duration;

    pub(super) struct Modes;

    impl Modes {
        pub(super) fn take() -> Self {
            Self
        }

        pub(super) fn has_keys(&self) -> bool {
            false
        }

        pub(super) fn put_back(&self) {}
    }

    pub(super) fn is_in_background() -> bool {
        false
    }

    #[allow(dead_code, reason = "no key ever comes")]
    pub(super) enum Next {
        Key(char),
        Nothing,
        End,
    }

    pub(super) fn next(_: Duration) -> Next {
        Next::End
    }
}

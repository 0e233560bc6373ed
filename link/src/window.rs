//! The window of frame numbers of a session: each is taken once, and none that is far behind.

/// How far behind the newest one the number of a frame may be.
const WINDOW: u64 = 1_024;

/// Which of the newest numbers have come (as in RFC 6479).
#[derive(Debug)]
pub(crate) struct Window {
    /// One more than the newest.
    end: u64,
    seen: [u64; (WINDOW / 64) as usize],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            end: 0,
            seen: [0; (WINDOW / 64) as usize],
        }
    }
}

impl Window {
    /// True once for each number that is not too old.
    pub(crate) fn is_new(&mut self, number: u64) -> bool {
        if number == u64::MAX || number + WINDOW < self.end {
            return false;
        }
        if number >= self.end {
            // What the window moves over was seen when its place stood for an older number.
            let passed = (number - self.end + 1).min(WINDOW);
            for gone in (number + 1 - passed)..=number {
                let (word, bit) = place(gone);
                self.seen[word] &= !bit;
            }
            self.end = number + 1;
        }
        let (word, bit) = place(number);
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "a number below the window's size"
)]
fn place(number: u64) -> (usize, u64) {
    let index = number % WINDOW;
    ((index / 64) as usize, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_once_and_not_when_it_is_too_old() {
        let mut window = Window::default();
        assert!(window.is_new(0));
        assert!(!window.is_new(0));
        assert!(window.is_new(5));
        assert!(window.is_new(3));
        assert!(!window.is_new(5));
        assert!(window.is_new(WINDOW + 5));
        assert!(!window.is_new(5), "too old");
        assert!(window.is_new(6), "the oldest that is not");
        assert!(!window.is_new(u64::MAX));
        assert!(window.is_new(10 * WINDOW));
        assert!(window.is_new(9 * WINDOW + 1));
        assert!(!window.is_new(10 * WINDOW));
    }
}

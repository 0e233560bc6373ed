//! Text that guests and far ends write and people read: bounded in bytes and without the control
//! characters that would let its author write to the terminal of its reader. Applied where such a
//! text enters a status, a log or a journal; nothing behind that point checks again.

/// Follows a text that was cut.
const CUT: char = '…';
/// Stands for a control character.
const REPLACEMENT: char = '\u{fffd}';

/// One line of at most `bytes_max` bytes, and `…` where it was cut. Control characters are replaced,
/// tabs are kept.
pub fn line(text: &str, bytes_max: usize) -> String {
    bounded(text, bytes_max, |character| character == '\t')
}

/// The same for a text that may have several lines.
pub fn paragraph(text: &str, bytes_max: usize) -> String {
    bounded(text, bytes_max, |character| {
        matches!(character, '\t' | '\n')
    })
}

/// A length of time in milliseconds for people: its largest unit or two.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn bounded(text: &str, bytes_max: usize, is_kept: impl Fn(char) -> bool) -> String {
    let mut cleaned = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let shown = match character.is_control() && !is_kept(character) {
            true => REPLACEMENT,
            false => character,
        };
        if cleaned.len() + shown.len_utf8() > bytes_max {
            cleaned.push(CUT);
            break;
        }
        cleaned.push(shown);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character_and_marked() {
        assert_eq!(line("äää", 5), "ää…");
        assert_eq!(line("ää", 4), "ää");
        assert_eq!(paragraph("a\nb", 10), "a\nb");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(line("a\u{1b}[2Jb\tc\n", 100), "a\u{fffd}[2Jb\tc\u{fffd}");
    }

    proptest! {
        #[test]
        fn the_bound_holds_after_cleaning(text in "(\\PC|[\u{0}-\u{1f}]){0,80}", most in 0_usize..60) {
            let cleaned = paragraph(&text, most);
            prop_assert!(cleaned.strip_suffix(CUT).unwrap_or(&cleaned).len() <= most);
            prop_assert!(!cleaned.contains(|c: char| c.is_control() && c != '\t' && c != '\n'));
        }
    }
}

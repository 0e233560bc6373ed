//! Pages of the program's file. The kernel maps them when they are used, with their neighbours, and keeps
//! them mapped for as long as nothing else wants the memory: also those that only a start or a deployment has
//! needed.

use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;

/// The segments of the program that are never written. They stay where they are until it ends.
static SEGMENTS: LazyLock<Vec<Range<usize>>> = LazyLock::new(|| {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    segments(&maps, &program, give_back as fn() as usize)
});

/// Unmaps the pages of the program that were never written. Those that are still needed come back when they
/// are used, from the page cache or from the disk.
pub(crate) fn give_back() {
    for segment in SEGMENTS.iter() {
        release(segment);
    }
}

/// The segment of a program that has the code at `address`, and the one before it in its file, by
/// `/proc/PID/maps`: linkers put there what is only read. What follows the code is written when the program is
/// loaded (its relocations), although it can only be read afterwards. Whoever reads symbols maps the file once
/// more, and unmaps that again: it is no segment.
fn segments(maps: &str, program: &Path, address: usize) -> Vec<Range<usize>> {
    let mappings: Vec<_> = maps
        .lines()
        .filter_map(|line| mapping(line, program))
        .collect();
    let is_code = |mapping: &Option<Mapping>| {
        let code = mapping.as_ref().filter(|one| one.access == "r-xp");
        code.is_some_and(|one| one.range.contains(&address))
    };
    let Some(index) = mappings.iter().position(is_code) else {
        return Vec::new();
    };
    let before = index
        .checked_sub(1)
        .and_then(|before| mappings[before].as_ref());
    let before = before.filter(|one| one.access == "r--p" && one.offset == 0);
    let code = mappings[index].as_ref();
    before
        .into_iter()
        .chain(code)
        .map(|one| one.range.clone())
        .collect()
}

/// A mapping of the program's file.
struct Mapping<'a> {
    range: Range<usize>,
    access: &'a str,
    offset: u64,
}

/// What a line says; none inside where it is of another file.
fn mapping<'a>(line: &'a str, program: &Path) -> Option<Option<Mapping<'a>>> {
    let mut words = line.splitn(6, ' ');
    let (addresses, access, offset) = (words.next()?, words.next()?, words.next()?);
    let path = words.nth(2).unwrap_or_default().trim_start();
    let (from, to) = addresses.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let mapping = Mapping {
        range: address(from)?..address(to)?,
        access,
        offset: u64::from_str_radix(offset, 16).ok()?,
    };
    Some(Some(mapping).filter(|_| Path::new(path) == program))
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "rustix offers madvise(2) as an unsafe function, too"
)]
fn release(range: &Range<usize>) {
    let start = range.start as *mut libc::c_void;
    // SAFETY: the range is a segment of this program, which stays mapped until it ends, is private to it and
    // never written to: every page of it is read from the file again, with the same content, when it is used.
    unsafe {
        // An error leaves the pages where they are.
        let _ = libc::madvise(start, range.len(), libc::MADV_DONTNEED);
    }
}

#[cfg(not(target_os = "linux"))]
fn release(_: &Range<usize>) {}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
00010000-00090000 r--p 00000000 08:01 42                                 /usr/bin/haar-agent
00200000-00300000 r--p 00000000 08:01 42                                 /usr/bin/haar-agent
00301000-00900000 r-xp 00100000 08:01 42                                 /usr/bin/haar-agent
00900000-00940000 r--p 00700000 08:01 42                                 /usr/bin/haar-agent
00940000-00950000 rw-p 00740000 08:01 42                                 /usr/bin/haar-agent
00950000-00960000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000010000 r-xp 00000000 08:01 43                         /var/lib/haar/compiled/a b
7f0000010000-7f0000020000 r-xp 00000000 00:00 0
";

    fn of(program: &str, address: usize) -> Vec<Range<usize>> {
        segments(MAPS, Path::new(program), address)
    }

    #[test]
    fn code_and_what_stands_before_it_are_never_written_and_nothing_else() {
        let agent = "/usr/bin/haar-agent";
        assert_eq!(
            of(agent, 0x40_0000),
            [0x20_0000..0x30_0000, 0x30_1000..0x90_0000]
        );
        // Not the file that somebody else has mapped, nor relocations, nor what is elsewhere.
        for address in [0x1_0000, 0x20_0000, 0x90_0000, 0x94_0000, 0x7f00_0000_0000] {
            assert!(of(agent, address).is_empty(), "{address:x}");
        }
        assert!(of("/usr/bin/haar", 0x40_0000).is_empty());
        assert_eq!(of("/var/lib/haar/compiled/a b", 0x7f00_0000_0000).len(), 1);
    }

    /// Other tests of this program go on meanwhile.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_runs_on_without_them() {
        assert_eq!(SEGMENTS.len(), 2, "{:?}", *SEGMENTS);
        give_back();
        assert!(std::panic::catch_unwind(|| panic!("it unwinds, too")).is_err());
    }
}

//! Pages of the program's file. The kernel maps them when they are used, with their neighbours, and keeps
//! them mapped for as long as nothing else wants the memory: also those that only a start or a deployment has
//! needed, which are a fifth of what a small node holds.

use std::ops::Range;
use std::path::Path;

/// Unmaps the pages of the program that were never written. Those that are still needed come back when they
/// are used, from the page cache or from the disk.
pub(crate) fn give_back() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Ok(program) = std::fs::read_link("/proc/self/exe") else {
        return;
    };
    for range in unwritten(&maps, &program) {
        release(range);
    }
}

/// Where the code of a program and what stands before it in its file are mapped, by `/proc/PID/maps`: linkers
/// put there what is only read. What follows the code is written when the program is loaded (its relocations),
/// although it can only be read afterwards.
fn unwritten(maps: &str, program: &Path) -> Vec<Range<usize>> {
    let range = |line: &str| {
        let mut words = line.splitn(6, ' ');
        let (addresses, access, offset) = (words.next()?, words.next()?, words.next()?);
        let path = words.nth(2)?.trim_start();
        let is_read =
            access == "r-xp" || (access == "r--p" && offset.bytes().all(|byte| byte == b'0'));
        let (from, to) = addresses.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        (is_read && Path::new(path) == program).then_some(address(from)?..address(to)?)
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "rustix offers madvise(2) as an unsafe function, too"
)]
fn release(range: Range<usize>) {
    let start = range.start as *mut libc::c_void;
    // SAFETY: the range is one whole mapping of the program's file, private and never written to, so every
    // page of it is read from the file again with the same content when it is used.
    unsafe {
        // An error leaves the pages where they are.
        let _ = libc::madvise(start, range.len(), libc::MADV_DONTNEED);
    }
}

#[cfg(not(target_os = "linux"))]
fn release(_: Range<usize>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_what_stands_before_it_are_never_written_and_nothing_else() {
        let maps = "\
00200000-00300000 r--p 00000000 08:01 42                                 /usr/bin/haar-agent
00300000-00900000 r-xp 00100000 08:01 42                                 /usr/bin/haar-agent
00900000-00940000 r--p 00700000 08:01 42                                 /usr/bin/haar-agent
00940000-00950000 rw-p 00740000 08:01 42                                 /usr/bin/haar-agent
00950000-00960000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000010000 r-xp 00000000 08:01 43                         /var/lib/haar/compiled/a b
7f0000010000-7f0000020000 r-xp 00000000 00:00 0
";
        assert_eq!(
            unwritten(maps, Path::new("/usr/bin/haar-agent")),
            [0x20_0000..0x30_0000, 0x30_0000..0x90_0000]
        );
        assert_eq!(
            unwritten(maps, Path::new("/var/lib/haar/compiled/a b")).len(),
            1
        );
        assert!(unwritten(maps, Path::new("/usr/bin/haar")).is_empty());
    }

    /// Other tests of this program go on meanwhile.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_runs_on_without_them() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        // A backtrace of another test maps the file once more.
        assert!(unwritten(&maps, &program).len() >= 2, "{maps}");
        give_back();
        assert!(std::panic::catch_unwind(|| panic!("it unwinds, too")).is_err());
    }
}

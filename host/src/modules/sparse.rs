//! A file that is written from its beginning to its end, in which blocks of zeros are holes: they
//! take no room on the disk and wear no flash. Compiled code for ARM is padded to pages of 64 KiB.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::Path;

/// Blocks of file systems.
const BLOCK_BYTES: usize = 4 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct SparseFile {
    file: File,
    bytes: u64,
}

impl SparseFile {
    /// A new file at `path`; what was there is gone.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).open(path)?;
        Ok(Self { file, bytes: 0 })
    }

    /// Everything is on the disk.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.sync_all()
    }
}

impl Write for SparseFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // To the end of the block that the file is in.
        let in_block = usize::try_from(self.bytes % BLOCK_BYTES as u64).unwrap_or(0);
        let count = buffer.len().min(BLOCK_BYTES - in_block);
        let piece = &buffer[..count];
        if count == BLOCK_BYTES && piece.iter().all(|byte| *byte == 0) {
            self.file
                .seek(SeekFrom::Start(self.bytes + BLOCK_BYTES as u64))?;
        } else {
            self.file.write_all(piece)?;
        }
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use proptest::prelude::*;

    use super::*;

    fn written(pieces: &[Vec<u8>]) -> (Vec<u8>, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = SparseFile::create(&path).unwrap();
        for piece in pieces {
            file.write_all(piece).unwrap();
        }
        file.finish().unwrap();
        let blocks = path.metadata().unwrap().blocks();
        (std::fs::read(path).unwrap(), blocks * 512)
    }

    #[test]
    fn zeros_take_no_room() {
        let content = [vec![1; 10], vec![0; 1 << 20], vec![2; 10]];
        let (read, on_disk) = written(&content);
        assert_eq!(read, content.concat());
        assert!(on_disk < 64 << 10, "{on_disk} bytes on the disk");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            runs in proptest::collection::vec((prop_oneof![Just(0_u8), any::<u8>()], 0..9_000_usize), 0..8),
        ) {
            let pieces: Vec<Vec<u8>> = runs.iter().map(|(byte, count)| vec![*byte; *count]).collect();
            prop_assert_eq!(written(&pieces).0, pieces.concat());
        }
    }
}

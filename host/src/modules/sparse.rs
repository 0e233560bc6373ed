//! A file that is written from its beginning to its end, in which blocks of zeros are holes: they
//! take no room on the disk and wear no flash. Compiled code for ARM is padded to pages of 64 KiB.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
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
        let mut file = File::options();
        let file = file.read(true).write(true).create_new(true).open(path)?;
        Ok(Self { file, bytes: 0 })
    }

    /// The file at `path`, to be continued; a new one where there is none, or one that was finished
    /// and made read-only.
    pub(super) fn resume(path: &Path) -> io::Result<Self> {
        match File::options().read(true).write(true).open(path) {
            Ok(file) => Ok(Self { file, bytes: 0 }),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Err(error),
            Err(_) => Self::create(path),
        }
    }

    /// What it has, from its beginning.
    pub(super) fn content(&mut self) -> io::Result<impl Read> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(&self.file)
    }

    /// Goes on behind the first `bytes`; what stood there is gone.
    pub(super) fn go_on_at(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.file.seek(SeekFrom::Start(bytes))?;
        self.bytes = bytes;
        Ok(())
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

    #[test]
    fn a_file_goes_on_where_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut kept = Vec::new();
        for (from, piece) in [
            (0, vec![1; 5_000]),
            (4_096, vec![0; 8_192]),
            (8_192, vec![3; 10]),
        ] {
            let mut file = SparseFile::resume(&path).unwrap();
            let mut content = Vec::new();
            file.content().unwrap().read_to_end(&mut content).unwrap();
            assert_eq!(content, kept);
            file.go_on_at(from).unwrap();
            file.write_all(&piece).unwrap();
            file.finish().unwrap();
            kept.truncate(usize::try_from(from).unwrap());
            kept.extend(piece);
            assert_eq!(std::fs::read(&path).unwrap(), kept);
        }
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

//! Code on a node's disk, in one file with its seal: the code comes first, so that it is mapped as it
//! lies there; what stands behind it the engine does not look at.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

use super::{ArtifactError, CODE_BYTES_MAX, Expected, GoodSeal, SEAL_BYTES_MAX};
use crate::load::Lease;

/// Bytes of the seal's size, at the end of a file.
const SIZE_BYTES: usize = 4;
/// The most bytes that stand behind the code.
pub const TRAILER_BYTES_MAX: usize = SEAL_BYTES_MAX + SIZE_BYTES;

/// Code that passed every check: it was compiled from the expected module for this engine by
/// somebody trusted. Only [`GoodSeal::check`] and [`Expected::check_file`] make one.
#[derive(Debug)]
pub struct CheckedCode(pub(crate) Where);

/// Where checked code is.
#[derive(Debug)]
pub(crate) enum Where {
    /// In memory of ours.
    Memory(Vec<u8>),
    /// In a file that nobody can open for writing as long as the lease is held.
    File(Lease),
}

impl GoodSeal {
    /// Writes what stands behind the code in a file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_trailer(&self, output: &mut impl Write) -> Result<(), ArtifactError> {
        let size = u32::try_from(self.bytes.len()).expect("a seal is small");
        output.write_all(&self.bytes)?;
        Ok(output.write_all(&size.to_le_bytes())?)
    }

    /// Checks code in memory.
    ///
    /// # Errors
    /// When it is not the code of this seal.
    pub fn check(&self, code: Vec<u8>) -> Result<CheckedCode, ArtifactError> {
        self.compare(&code[..])?;
        Ok(CheckedCode(Where::Memory(code)))
    }
}

impl Expected<'_> {
    /// Checks a file of code with its seal. It can't change between this and the engine's use of it:
    /// nobody can open it for writing meanwhile. Where the system does not promise that (another
    /// process has it open for writing; a file system without leases), it is read into memory and
    /// checked there.
    ///
    /// # Errors
    /// When it can't be read, or its seal is not as expected, or the code is not the seal's.
    pub fn check_file(&self, file: File) -> Result<CheckedCode, ArtifactError> {
        match Lease::take(file) {
            Ok(lease) => {
                let mut file = lease.file();
                let seal = self.seal_at_the_end(file)?;
                file.seek(SeekFrom::Start(0))?;
                seal.compare(file.take(seal.code_bytes))?;
                Ok(CheckedCode(Where::File(lease)))
            }
            Err(file) => {
                let mut bytes = Vec::new();
                let most = CODE_BYTES_MAX + TRAILER_BYTES_MAX as u64;
                (&file).take(most).read_to_end(&mut bytes)?;
                let seal = self.seal_at_the_end(&file)?;
                bytes.truncate(usize::try_from(seal.code_bytes).unwrap_or(usize::MAX));
                seal.check(bytes)
            }
        }
    }

    /// The seal of a file that has nothing but it and as much code as it is for.
    fn seal_at_the_end(&self, file: &File) -> Result<GoodSeal, ArtifactError> {
        let bytes = file.metadata()?.len();
        let before = |end: u64, count: u64| end.checked_sub(count).ok_or(ArtifactError::Malformed);
        let size_at = before(bytes, SIZE_BYTES as u64)?;
        let mut size = [0; SIZE_BYTES];
        file.read_exact_at(&mut size, size_at)?;
        let size = u32::from_le_bytes(size) as usize;
        if size > SEAL_BYTES_MAX {
            return Err(ArtifactError::Malformed);
        }
        let seal_at = before(size_at, size as u64)?;
        let mut seal = vec![0; size];
        file.read_exact_at(&mut seal, seal_at)?;
        let seal = self.open(&seal)?;
        if seal.code_bytes == seal_at {
            Ok(seal)
        } else {
            Err(ArtifactError::Changed)
        }
    }
}

//! Code on its way from a controller: deflated in pieces, so that a fetch that was cut off goes on
//! where it stopped.
//!
//! ```text
//! seal | size of each deflated piece: u32 LE | the pieces (each RFC 1951), of 64 KiB of code each
//! ```
//! The sizes are nobody's word: what comes of the pieces is the code of the seal, or is refused.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use sha2::{Digest as _, Sha256};

use super::{ArtifactError, GoodSeal, read_exactly};

/// Bytes of code in a piece; the last one may have fewer.
pub const PIECE_BYTES: usize = 64 << 10;
/// The most bytes of a piece when deflated: what does not shrink grows by a few bytes each 16 KiB.
const DEFLATED_BYTES_MAX: usize = PIECE_BYTES + 1_024;

/// A seal with its code, as controllers send it.
pub fn pack(seal: &[u8], code: &[u8]) -> Vec<u8> {
    let pieces: Vec<Vec<u8>> = code.chunks(PIECE_BYTES).map(deflated).collect();
    let sizes = pieces.iter().flat_map(|piece| {
        let size = u32::try_from(piece.len()).expect("a piece is small");
        size.to_le_bytes()
    });
    let mut packed = seal.to_vec();
    packed.extend(sizes);
    packed.extend(pieces.concat());
    packed
}

fn deflated(piece: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(piece).and_then(|()| encoder.finish());
    written.expect("a vector takes everything")
}

/// Code that is being unpacked, piece by piece.
#[derive(Debug)]
pub struct Unpacking {
    seal: GoodSeal,
    /// Of each deflated piece.
    sizes: Vec<usize>,
    /// Pieces that are unpacked.
    done: usize,
    hash: Sha256,
}

impl GoodSeal {
    /// Begins to unpack the code that follows the seal: reads the sizes of the pieces.
    ///
    /// # Errors
    /// [`ArtifactError::Malformed`]; reading may fail.
    pub fn unpack(self, packed: &mut impl Read) -> Result<Unpacking, ArtifactError> {
        let pieces = self.code_bytes.div_ceil(PIECE_BYTES as u64);
        let mut sizes = Vec::new();
        for _ in 0..pieces {
            let mut size = [0; 4];
            read_exactly(packed, &mut size)?;
            let size = u32::from_le_bytes(size) as usize;
            if size > DEFLATED_BYTES_MAX {
                return Err(ArtifactError::Malformed);
            }
            sizes.push(size);
        }
        Ok(Unpacking {
            seal: self,
            sizes,
            done: 0,
            hash: Sha256::new(),
        })
    }
}

impl Unpacking {
    /// Takes the whole pieces of what an earlier attempt has unpacked, instead of unpacking them
    /// again. Returns how many bytes of it those are: what follows goes behind them.
    ///
    /// # Errors
    /// When `kept` can't be read.
    pub fn resume(&mut self, mut kept: impl Read) -> io::Result<u64> {
        let mut piece = Vec::new();
        while self.done < self.sizes.len() {
            piece.clear();
            let bytes = self.piece_bytes() as u64;
            if kept.by_ref().take(bytes).read_to_end(&mut piece)? as u64 != bytes {
                break;
            }
            self.hash.update(&piece);
            self.done += 1;
        }
        Ok(self.unpacked_bytes())
    }

    /// Where the next piece begins in what the controller sends.
    pub fn offset(&self) -> u64 {
        let pieces: usize = self.sizes[..self.done].iter().sum();
        (self.seal.bytes.len() + 4 * self.sizes.len() + pieces) as u64
    }

    /// Bytes of code that are unpacked.
    pub fn unpacked_bytes(&self) -> u64 {
        self.seal.code_bytes.min((self.done * PIECE_BYTES) as u64)
    }

    /// Bytes of code that there will be.
    pub fn code_bytes(&self) -> u64 {
        self.seal.code_bytes
    }

    /// Unpacks the next piece from `packed`, which stands at [`Unpacking::offset`], into `output`.
    /// False when there is none.
    ///
    /// # Errors
    /// [`ArtifactError::Changed`] when it is not a piece of this size. [`ArtifactError::File`] when
    /// reading or writing fails, and when `packed` ends too early: then all pieces before are good
    /// for [`Unpacking::resume`].
    pub fn next(
        &mut self,
        packed: &mut impl Read,
        output: &mut impl Write,
    ) -> Result<bool, ArtifactError> {
        let Some(size) = self.sizes.get(self.done) else {
            return Ok(false);
        };
        let mut deflated = vec![0; *size];
        packed.read_exact(&mut deflated)?;
        // One byte more than there should be, so that too long a piece is noticed.
        let mut piece = Vec::with_capacity(self.piece_bytes());
        let inflated = DeflateDecoder::new(&deflated[..])
            .take(self.piece_bytes() as u64 + 1)
            .read_to_end(&mut piece);
        if inflated.is_err() || piece.len() != self.piece_bytes() {
            return Err(ArtifactError::Changed);
        }
        output.write_all(&piece)?;
        self.hash.update(&piece);
        self.done += 1;
        Ok(true)
    }

    /// The seal, when all pieces together are its code.
    ///
    /// # Errors
    /// [`ArtifactError::Changed`].
    pub fn finish(self) -> Result<GoodSeal, ArtifactError> {
        let bytes = self.unpacked_bytes();
        self.seal.is_code(self.hash, bytes)?;
        Ok(self.seal)
    }

    /// Bytes of code in the next piece.
    fn piece_bytes(&self) -> usize {
        let rest = self.seal.code_bytes - self.unpacked_bytes();
        usize::try_from(rest).map_or(PIECE_BYTES, |rest| rest.min(PIECE_BYTES))
    }
}

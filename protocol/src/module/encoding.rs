//! Numbers and slices as WebAssembly files and signatures have them.

use super::ModuleError;

/// Reads bytes from the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], ModuleError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(ModuleError::Malformed("a section is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ModuleError> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned LEB128 number of at most 32 bits (WebAssembly core specification, 5.2.2).
    pub(super) fn varint(&mut self) -> Result<u32, ModuleError> {
        let mut value = 0u32;
        for shift in [0u32, 7, 14, 21, 28] {
            let byte = self.byte()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ModuleError::Malformed("a number is too long"))
    }

    /// A number in its shortest form only: what is not signed must have one valid value.
    pub(super) fn shortest_varint(&mut self) -> Result<u32, ModuleError> {
        let before = self.0;
        let value = self.varint()?;
        let used = before.len() - self.0.len();
        let mut shortest = Vec::with_capacity(5);
        put_varint(&mut shortest, value);
        if shortest.len() == used {
            Ok(value)
        } else {
            Err(ModuleError::Malformed(
                "a number is not in its shortest form",
            ))
        }
    }

    pub(super) fn slice(&mut self) -> Result<&'a [u8], ModuleError> {
        let length = self.shortest_varint()? as usize;
        self.take(length)
    }
}

pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u32) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

pub(super) fn put_slice(bytes: &mut Vec<u8>, slice: &[u8]) {
    let length = u32::try_from(slice.len()).expect("sections that are written here are small");
    put_varint(bytes, length);
    bytes.extend_from_slice(slice);
}

//! Compiled code without the names of its functions: the engine writes a symbol table for debuggers
//! and never reads it, and on a gateway each byte of it is written to flash.

/// Of an ELF header (System V ABI, "Object Files"; 64 bits): where the segments and the section headers
/// are, how large one of these is, and how many there are.
const SEGMENTS_AT: usize = 0x20;
const SECTIONS_AT: usize = 0x28;
const SECTION_SIZE_AT: usize = 0x3a;
const SECTION_COUNT_AT: usize = 0x3c;
const SECTION_BYTES: usize = 64;
/// Of a section header: its kind, where its content is, its size, which section belongs to it, and on
/// what its content is aligned.
const KIND_AT: usize = 4;
const OFFSET_AT: usize = 24;
const SIZE_AT: usize = 32;
const LINK_AT: usize = 40;
const ALIGNMENT_AT: usize = 48;
/// The kind of a symbol table, and that of a section which is none.
const SYMBOLS: u32 = 2;
const NOTHING: u32 = 0;
/// What follows the table moves by a multiple of this, the alignment of section headers.
const STEP: usize = 8;

/// Removes the symbol table and its names from `code`, an ELF file for 64 bits, when nothing but
/// small sections and the section headers follow them. Anything else is left as it is.
pub(super) fn strip(mut code: Vec<u8>) -> Vec<u8> {
    match plan(&code) {
        Some(plan) => {
            plan.carry_out(&mut code);
            code
        }
        None => code,
    }
}

/// What is to be done.
struct Plan {
    /// Bytes that are removed.
    cut: std::ops::Range<usize>,
    /// Where the section headers are, before.
    headers: usize,
    count: usize,
    /// Indices of the table and of its names.
    removed: [usize; 2],
}

fn plan(code: &[u8]) -> Option<Plan> {
    // 64 bits, the least significant byte first.
    if !code.starts_with(b"\x7fELF\x02\x01") || half(code, SECTION_SIZE_AT)? != SECTION_BYTES {
        return None;
    }
    if word(code, SEGMENTS_AT)? != 0 {
        return None;
    }
    let headers = word(code, SECTIONS_AT)?;
    let count = half(code, SECTION_COUNT_AT)?;
    let whole = headers.checked_add(count.checked_mul(SECTION_BYTES)?)?;
    if whole != code.len() {
        return None;
    }
    let at = |index: usize| headers + index * SECTION_BYTES;
    let range = |index: usize| {
        let start = word(code, at(index) + OFFSET_AT)?;
        Some(start..start.checked_add(word(code, at(index) + SIZE_AT)?)?)
    };
    let kind = |index: usize| number(code, at(index) + KIND_AT);
    let table = (0..count).find(|index| kind(*index) == Some(SYMBOLS))?;
    let names = usize::try_from(number(code, at(table) + LINK_AT)?).ok()?;
    if names == table || names >= count {
        return None;
    }
    let (symbols, strings) = (range(table)?, range(names)?);
    if symbols.end > strings.start || strings.start - symbols.end >= STEP || strings.end > headers {
        return None;
    }
    let bytes = (strings.end.checked_sub(symbols.start)?) / STEP * STEP;
    let cut = symbols.start..symbols.start + bytes;
    for index in (0..count).filter(|index| ![table, names].contains(index)) {
        let content = range(index)?;
        let is_behind = content.start >= strings.end;
        let alignment = word(code, at(index) + ALIGNMENT_AT)?;
        let can_move = alignment == 0 || STEP.is_multiple_of(alignment);
        // The first header is that of no section.
        if index > 0 && !(content.end <= symbols.start || is_behind && can_move) {
            return None;
        }
    }
    Some(Plan {
        cut,
        headers,
        count,
        removed: [table, names],
    })
}

impl Plan {
    fn carry_out(&self, code: &mut Vec<u8>) {
        let moved = self.cut.len();
        for index in 1..self.count {
            let at = self.headers + index * SECTION_BYTES;
            let (offset_at, size_at) = (at + OFFSET_AT, at + SIZE_AT);
            if self.removed.contains(&index) {
                code[at + KIND_AT..][..4].copy_from_slice(&NOTHING.to_le_bytes());
                put(code, offset_at, self.cut.start);
                put(code, size_at, 0);
            } else if let Some(offset) = word(code, offset_at).filter(|at| *at >= self.cut.end) {
                put(code, offset_at, offset - moved);
            }
        }
        put(code, SECTIONS_AT, self.headers - moved);
        code.drain(self.cut.clone());
    }
}

fn half(code: &[u8], at: usize) -> Option<usize> {
    let bytes = code.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*bytes)))
}

fn number(code: &[u8], at: usize) -> Option<u32> {
    let bytes = code.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn word(code: &[u8], at: usize) -> Option<usize> {
    let bytes = code.get(at..)?.first_chunk()?;
    usize::try_from(u64::from_le_bytes(*bytes)).ok()
}

fn put(code: &mut [u8], at: usize, value: usize) {
    code[at..][..8].copy_from_slice(&(value as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use haar_conformance_artifacts as artifacts;
    use haar_protocol::ids::Digest;
    use haar_protocol::keys::SecretKey;
    use haar_protocol::module::{Publishers, Signatures, sign};
    use proptest::prelude::*;

    use super::*;
    use crate::artifact::{Expected, Origin, seal};
    use crate::compiler::child::with_symbols;
    use crate::{configuration, load};

    fn compiled(target: Option<&str>) -> Vec<u8> {
        let engine = configuration::engine_that_compiles(target).unwrap();
        let module = artifacts::read(artifacts::ECHO);
        let here = configuration::target();
        with_symbols(&engine, target.unwrap_or(&here), &module).unwrap()
    }

    /// The contents of all sections but those that are removed, in their order.
    fn sections(code: &[u8]) -> Vec<&[u8]> {
        let headers = word(code, SECTIONS_AT).unwrap();
        (1..half(code, SECTION_COUNT_AT).unwrap())
            .map(|index| headers + index * SECTION_BYTES)
            .map(|at| {
                let start = word(code, at + OFFSET_AT).unwrap();
                let content = &code[start..][..word(code, at + SIZE_AT).unwrap()];
                let alignment = word(code, at + ALIGNMENT_AT).unwrap().max(1);
                assert!(start.is_multiple_of(alignment));
                content
            })
            .collect()
    }

    #[test]
    fn code_for_every_target_loses_its_symbols_and_nothing_else() {
        for target in configuration::targets() {
            let code = compiled(Some(target));
            let stripped = strip(code.clone());
            let (before, after) = (sections(&code), sections(&stripped));
            let removed: Vec<usize> = (0..before.len())
                .filter(|index| before[*index] != after[*index])
                .collect();
            assert_eq!(removed.len(), 2, "{target}");
            let gone: usize = removed.iter().map(|index| before[*index].len()).sum();
            assert!(removed.iter().all(|index| after[*index].is_empty()));
            let less = code.len() - stripped.len();
            assert!(
                (gone..gone + 2 * STEP).contains(&(less + STEP)),
                "{less} of {gone} bytes"
            );
            assert!(less > 5_000, "{target}: {less} bytes");
            assert_eq!(
                strip(stripped.clone()),
                stripped,
                "nothing is left to strip"
            );
        }
    }

    #[test]
    fn the_engine_loads_stripped_code() {
        let (key, digest) = (SecretKey::from_seed([1; 32]), Digest::of(b"module"));
        let module = sign(&artifacts::read(artifacts::ECHO), &key).unwrap();
        let code = strip(compiled(None));
        let (fingerprint, target) = (configuration::fingerprint(), configuration::target());
        let origin = Origin {
            module: &digest,
            signatures: &Signatures::of(&module).unwrap(),
            fingerprint: &fingerprint,
            target: &target,
        };
        let seal = seal(&origin, &code, &key);
        let keys = [key.public()];
        let expected = Expected {
            module: &digest,
            publishers: Publishers {
                of_site: &keys,
                of_owner: None,
                later: None,
            },
            fingerprint: &fingerprint,
            target: &target,
            trusted: &keys,
        };
        let checked = expected.open(&seal).unwrap().check(code).unwrap();
        let engine = configuration::engine().unwrap();
        assert!(load::load(&engine, checked).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_grows(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            static CODE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| compiled(None));
            // Where it counts: the header, and the headers of sections.
            let headers = word(&CODE, SECTIONS_AT).unwrap();
            let mut code = CODE.clone();
            for (at, byte) in changes {
                let at = at.index(64 + CODE.len() - headers);
                code[if at < 64 { at } else { headers + at - 64 }] = byte;
            }
            prop_assert!(strip(code.clone()).len() <= code.len());
            code.truncate(cut.index(code.len()));
            prop_assert!(strip(code.clone()).len() <= code.len());
        }
    }
}

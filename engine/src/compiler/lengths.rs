//! Modules whose copies have no constant lengths. The compiler of this engine's release turns a short
//! copy within a memory (`memory.copy`, `memory.init`) whose length is a constant into vector
//! instructions, and panics where the processor has none: on 64-bit RISC-V without its extension V
//! (wasmtime issue 13959). There each length gets an addition of zero, which the compiler takes away
//! again, but later than it looks for constants.

use wasmparser::{BinaryReader, FunctionBody, Operator, Parser, Payload, Result, TypeRef};

/// Bytes before the first section: the magic number, then version and layer.
const HEADER_BYTES: usize = 8;
/// Where the layer is, and that of components.
const LAYER_AT: usize = 6;
const COMPONENT: [u8; 2] = [1, 0];
/// Sections of components that hold modules and components.
const NESTED: [u8; 2] = [1, 4];
/// Sections of modules.
const CUSTOM: u8 = 0;
const CODE: u8 = 10;
/// `i32.const 0` and `i32.add`; `i64.const 0` and `i64.add`.
const ADD_ZERO: [u8; 3] = [0x41, 0, 0x6a];
const ADD_ZERO_64: [u8; 3] = [0x42, 0, 0x7c];

/// `file`, a component or a module that is valid, with lengths that are no constants. Debug information
/// of changed modules is left out: the places that it names have moved.
///
/// # Errors
/// When `file` is neither.
pub(super) fn without_constant_lengths(file: &[u8]) -> Result<Vec<u8>> {
    let mut reader = BinaryReader::new(file, 0);
    let header = reader.read_bytes(HEADER_BYTES)?;
    let is_component = header[LAYER_AT..] == COMPONENT;
    let is_64 = if is_component {
        Vec::new()
    } else {
        memories(file)?
    };
    let mut changed = header.to_vec();
    while !reader.eof() {
        let kind = reader.read_u8()?;
        let mut content = reader.read_reader()?;
        let bytes = content.read_bytes(content.bytes_remaining())?;
        let section = match kind {
            _ if is_component && NESTED.contains(&kind) => without_constant_lengths(bytes)?,
            CODE if !is_component => functions(bytes, &is_64)?,
            CUSTOM if !is_component && is_debug_information(bytes)? => continue,
            _ => bytes.to_vec(),
        };
        changed.push(kind);
        put_sized(&mut changed, &section);
    }
    Ok(changed)
}

/// Which memories of a module have addresses of 64 bits.
fn memories(module: &[u8]) -> Result<Vec<bool>> {
    let mut is_64 = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    if let TypeRef::Memory(memory) = import?.ty {
                        is_64.push(memory.memory64);
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    is_64.push(memory?.memory64);
                }
            }
            _ => {}
        }
    }
    Ok(is_64)
}

fn is_debug_information(section: &[u8]) -> Result<bool> {
    let name = BinaryReader::new(section, 0).read_string()?;
    Ok(name.starts_with(".debug_"))
}

/// A code section.
fn functions(section: &[u8], is_64: &[bool]) -> Result<Vec<u8>> {
    let mut reader = BinaryReader::new(section, 0);
    let count = reader.read_var_u32()?;
    let mut changed = Vec::with_capacity(section.len());
    put_number(&mut changed, count);
    for _ in 0..count {
        let mut body = reader.read_reader()?;
        let bytes = body.read_bytes(body.bytes_remaining())?;
        put_sized(&mut changed, &function(bytes, is_64)?);
    }
    Ok(changed)
}

/// The body of a function.
fn function(body: &[u8], is_64: &[bool]) -> Result<Vec<u8>> {
    let mut changed = Vec::with_capacity(body.len());
    let mut copied = 0;
    let has_64 = |memory: u32| is_64.get(memory as usize).copied().unwrap_or_default();
    let operators = FunctionBody::new(BinaryReader::new(body, 0)).get_operators_reader()?;
    for operator in operators.into_iter_with_offsets() {
        let (operator, at) = operator?;
        let add_zero = match operator {
            Operator::MemoryCopy { dst_mem, src_mem } if has_64(dst_mem) && has_64(src_mem) => {
                ADD_ZERO_64
            }
            Operator::MemoryCopy { .. } | Operator::MemoryInit { .. } => ADD_ZERO,
            _ => continue,
        };
        changed.extend(&body[copied..at]);
        changed.extend(add_zero);
        copied = at;
    }
    changed.extend(&body[copied..]);
    Ok(changed)
}

fn put_sized(to: &mut Vec<u8>, content: &[u8]) {
    let bytes = u32::try_from(content.len()).expect("modules are smaller than 4 GiB");
    put_number(to, bytes);
    to.extend(content);
}

/// LEB128, as all numbers of WebAssembly.
fn put_number(to: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use haar_conformance_artifacts as artifacts;
    use proptest::prelude::*;
    use wasmparser::{Validator, WasmFeatures};
    use wasmtime::component::{Component, Linker};
    use wasmtime::{Engine, Store};

    use super::*;
    use crate::compiler::child::precompile;
    use crate::configuration;

    /// Copies with lengths that are constants, in memories of 32 and of 64 bits, that overlap and that
    /// start from data.
    const COPIES: &str = r#"(component
        (component $inner
            (core module $copies
                (memory $narrow 1)
                (memory $wide i64 1)
                (data $words "the quick brown fox jumps over the lazy dog")
                (func (export "run") (result i32)
                    (local $length i32)
                    (memory.init $narrow $words (i32.const 3) (i32.const 4) (i32.const 32))
                    (local.set $length (i32.const 24))
                    (memory.copy $narrow $narrow
                        (i32.const 8) (i32.const 3) (local.get $length))
                    (memory.copy $wide $narrow (i64.const 40) (i32.const 5) (i32.const 20))
                    (memory.copy $wide $wide (i64.const 44) (i64.const 40) (i64.const 17))
                    (i32.add
                        (i32.load $narrow (i32.const 26))
                        (i32.load $wide (i64.const 57))))
                (@custom ".debug_line" "moved")
                (@custom "other" "stays"))
            (core instance $copies (instantiate $copies))
            (func (export "run") (result u32) (canon lift (core func $copies "run"))))
        (instance $inner (instantiate $inner))
        (export "run" (func $inner "run")))"#;

    fn copies() -> Vec<u8> {
        wat::parse_str(COPIES).unwrap()
    }

    fn run(component: &[u8]) -> u32 {
        let mut settings = wasmtime::Config::new();
        settings.gc_support(false);
        let engine = Engine::new(&settings).unwrap();
        let component = Component::new(&engine, component).unwrap();
        let mut store = Store::new(&engine, ());
        let linker = Linker::new(&engine);
        let instance = linker.instantiate(&mut store, &component).unwrap();
        let run = instance.get_typed_func::<(), (u32,)>(&mut store, "run");
        run.unwrap().call(&mut store, ()).unwrap().0
    }

    #[test]
    fn what_was_changed_does_the_same() {
        let changed = without_constant_lengths(&copies()).unwrap();
        assert_eq!(run(&changed), run(&copies()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&changed).matches("stays").count(), 1);
        assert_eq!(text(&changed).matches("moved").count(), 0);
        let additions = |bytes: &[u8], addition: [u8; 3], operator: [u8; 2]| {
            let pattern = [addition.as_slice(), &operator].concat();
            bytes.windows(5).filter(|window| *window == pattern).count()
        };
        assert_eq!(additions(&changed, ADD_ZERO, [0xfc, 8]), 1, "memory.init");
        assert_eq!(additions(&changed, ADD_ZERO, [0xfc, 10]), 2, "memory.copy");
        assert_eq!(additions(&changed, ADD_ZERO_64, [0xfc, 10]), 1);
    }

    #[test]
    fn copies_of_constant_length_are_compiled_for_processors_without_vectors() {
        let target = "riscv64-linux";
        let engine = configuration::engine_that_compiles(Some(target)).unwrap();
        assert!(!precompile(&engine, target, &copies()).unwrap().is_empty());
        for (name, path) in artifacts::ALL {
            let error = precompile(&engine, target, &artifacts::read(path)).err();
            assert!(error.is_none(), "{name}: {error:?}");
        }
    }

    #[test]
    fn the_engine_still_needs_it() {
        let engine = configuration::engine_that_compiles(Some("riscv64-linux")).unwrap();
        let compile = || engine.precompile_component(&copies());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compile));
        assert!(outcome.is_err(), "this module has become superfluous");
    }

    #[test]
    fn vectors_of_a_module_are_refused_for_processors_without_them() {
        let vectors = r#"(component (core module
            (func (result v128) (v128.const i64x2 1 2))))"#;
        let target = "riscv64-linux";
        let engine = configuration::engine_that_compiles(Some(target)).unwrap();
        let refused = precompile(&engine, target, &wat::parse_str(vectors).unwrap()).unwrap_err();
        assert!(format!("{refused:#}").contains("SIMD"), "{refused:#}");
    }

    #[test]
    fn guests_stay_valid() {
        for (name, path) in artifacts::ALL {
            let changed = without_constant_lengths(&artifacts::read(path)).unwrap();
            let mut validator = Validator::new_with_features(WasmFeatures::all());
            let error = validator.validate_all(&changed).err();
            assert!(error.is_none(), "{name}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut component = copies();
            for (at, byte) in changes {
                let at = at.index(component.len());
                component[at] = byte;
            }
            component.truncate(cut.index(component.len() + 1));
            let _ = without_constant_lengths(&component); // whatever it says
        }
    }
}

//! Looks into a module file without compiling it: what it is called, what it imports and exports.
//! The controller does this at push, the CLI at build and verify; nothing here trusts the file.

use haar_protocol::ids::{Digest, Name};
use haar_protocol::module::{COMPONENT_HEADER, MODULE_BYTES_MAX, ModuleError};
use wasmparser::{Chunk, ComponentExternalKind, ComponentTypeRef, Parser, Payload, Validator};

use crate::bounds;

/// The most imports or exports that a component may have.
const PORTS_MAX: u64 = 1_000;

/// What a module file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its name (`component-name` section), when it has one that is a [`Name`].
    pub name: Option<Name>,
    /// Its version (`version` section, as `wasm-metadata` writes it).
    pub version: Option<String>,
    /// Bytes that its memories have when it starts.
    pub memory_bytes: u64,
    /// Interfaces that it imports, with versions, in file order.
    pub imports: Vec<String>,
    /// Interfaces that it exports, with versions, in file order.
    pub exports: Vec<String>,
}

/// Why a file can't be a module.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Wrong kind of file; the same reasons as for signatures.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// It does not validate as a component.
    #[error("not a valid component: {0}")]
    Invalid(String),
    /// It is built for a WASI that no agent of this release offers.
    #[error(
        "it is built for a newer WASI (it has `{0}`), and agents of this release run WASI 0.2: build it for the target wasm32-wasip2"
    )]
    NewerWasi(String),
    /// More of something than anybody needs.
    #[error("more than {max} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        max: u64,
    },
}

/// Validates `file` as a component and reads its names, imports and exports.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(file: &[u8]) -> Result<Inspected, InspectError> {
    check_kind(file)?;
    let mut inspected = Inspected {
        digest: Digest::of(file),
        bytes: file.len() as u64,
        name: None,
        version: None,
        memory_bytes: bounds::check(file)?,
        imports: Vec::new(),
        exports: Vec::new(),
    };
    read_top_level(file, &mut inspected)?;
    let interfaces = inspected.imports.iter().chain(&inspected.exports);
    if let Some(newer) = interfaces.into_iter().find(|name| is_of_newer_wasi(name)) {
        return Err(InspectError::NewerWasi(newer.clone()));
    }
    Validator::new_with_features(features())
        .validate_all(file)
        .map_err(|error| InspectError::Invalid(error.to_string()))?;
    Ok(inspected)
}

/// The WebAssembly features of our engine: what is standard in WebAssembly 3 and wasmtime enables
/// by default for components, without component-model async.
fn features() -> wasmparser::WasmFeatures {
    wasmparser::WasmFeatures::default() | wasmparser::WasmFeatures::COMPONENT_MODEL
}

/// True for an interface of WASI behind 0.2: all of these depend on the component model's async. A version
/// that is none is left to the validator.
fn is_of_newer_wasi(interface: &str) -> bool {
    let version = interface
        .strip_prefix("wasi:")
        .and_then(|name| name.split_once('@'));
    let Some((_, version)) = version else {
        return false;
    };
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) > (0, 2),
        _ => false,
    }
}

fn check_kind(file: &[u8]) -> Result<(), ModuleError> {
    if file.len() as u64 > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge(file.len() as u64));
    }
    if file.starts_with(&COMPONENT_HEADER) {
        return Ok(());
    }
    if file.starts_with(b"\0asm\x01\0\0\0") {
        Err(ModuleError::CoreModule)
    } else {
        Err(ModuleError::NotWasm)
    }
}

fn read_top_level(file: &[u8], inspected: &mut Inspected) -> Result<(), InspectError> {
    let invalid = |error: wasmparser::BinaryReaderError| InspectError::Invalid(error.to_string());
    let mut parser = Parser::new(0);
    let mut rest = file;
    loop {
        let (payload, consumed) = match parser.parse(rest, true).map_err(invalid)? {
            Chunk::Parsed { payload, consumed } => (payload, consumed),
            Chunk::NeedMoreData(_) => return Err(InspectError::Invalid("truncated".into())),
        };
        rest = &rest[consumed..];
        match payload {
            Payload::ModuleSection {
                unchecked_range, ..
            }
            | Payload::ComponentSection {
                unchecked_range, ..
            } => {
                // What is nested is the validator's business: go on behind it.
                let nested = unchecked_range.len();
                rest = rest
                    .get(nested..)
                    .ok_or_else(|| InspectError::Invalid("truncated".into()))?;
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    if matches!(import.ty, ComponentTypeRef::Type(..)) {
                        continue; // types that world-level functions use are not capabilities
                    }
                    push(&mut inspected.imports, import.name.name, "imports")?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    if export.kind != ComponentExternalKind::Type {
                        push(&mut inspected.exports, export.name.name, "exports")?;
                    }
                }
            }
            Payload::CustomSection(section) if section.name() == "version" => {
                inspected.version = std::str::from_utf8(section.data()).ok().map(str::to_owned);
            }
            Payload::CustomSection(section) if section.name() == "component-name" => {
                inspected.name = component_name(&section);
            }
            Payload::End(_) => return Ok(()),
            _ => {}
        }
    }
}

fn push(names: &mut Vec<String>, name: &str, what: &'static str) -> Result<(), InspectError> {
    if names.len() as u64 == PORTS_MAX {
        let max = PORTS_MAX;
        return Err(InspectError::TooMany { what, max });
    }
    names.push(name.to_owned());
    Ok(())
}

fn component_name(section: &wasmparser::CustomSectionReader<'_>) -> Option<Name> {
    let wasmparser::KnownCustom::ComponentName(names) = section.as_known() else {
        return None;
    };
    names.into_iter().find_map(|entry| match entry {
        Ok(wasmparser::ComponentName::Component { name, .. }) => name.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use haar_conformance_artifacts as artifacts;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_guest_says_what_it_imports_and_exports() {
        let inspected = inspect(&artifacts::read(artifacts::ECHO)).unwrap();
        assert!(
            inspected
                .imports
                .contains(&"haar:local/messaging@0.1.0".to_owned())
        );
        assert!(
            inspected
                .exports
                .contains(&"haar:local/handler@0.1.0".to_owned())
        );
        assert!(
            inspected
                .exports
                .contains(&"haar:local/lifecycle@0.1.0".to_owned())
        );
    }

    #[test]
    fn versions_of_wasi_are_compared_as_numbers() {
        for (version, is_newer) in [
            ("0.1.0", false),
            ("0.2.0", false),
            ("0.2.12", false),
            ("0.2.0-rc-2023-11-10", false),
            ("0.2", false),
            ("0.0.4", false),
            ("0.3.0", true),
            ("0.3.0-rc-2025-09-16", true),
            ("0.10.0", true),
            ("0.20.1", true),
            ("1.0.0", true),
        ] {
            let interface = format!("wasi:io/streams@{version}");
            assert_eq!(is_of_newer_wasi(&interface), is_newer, "{interface}");
        }
        assert!(!is_of_newer_wasi("wasi:logging/logging"));
        assert!(!is_of_newer_wasi("other:io/streams@0.3.0"));
    }

    #[test]
    fn what_is_no_component_is_told_apart() {
        let core = inspect(&artifacts::core_module()).unwrap_err();
        assert!(matches!(
            core,
            InspectError::Module(ModuleError::CoreModule)
        ));
        let text = inspect(b"hello, world").unwrap_err();
        assert!(matches!(text, InspectError::Module(ModuleError::NotWasm)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_component_never_panics(position in 8..50_000usize, byte: u8, cut in 8..50_000usize) {
            let mut file = artifacts::read(artifacts::ECHO);
            let position = position.min(file.len() - 1);
            file[position] = byte;
            let _ = inspect(&file);
            // A cut between two sections may leave a smaller component; a panic is never right.
            let _ = inspect(&file[..cut.min(file.len() - 1)]);
        }
    }
}

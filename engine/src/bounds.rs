//! Bounds on what the validator lets pass: parts that are valid in any number, and for each of
//! which whoever compiles or instantiates the component pays. One pass over the whole file, before
//! anything is built from it. Only [`crate::inspect`] calls this.

use wasmparser::{ComponentTypeSectionReader, Parser, Payload};

use crate::inspect::InspectError;

/// Components, core modules and instances of both, in the whole file.
const PARTS_MAX: u64 = 1_000;
/// Components inside components.
const DEPTH_MAX: usize = 32;
/// Functions of all core modules together.
const FUNCTIONS_MAX: u64 = 100_000;
/// Bytes of the body of one function; compilers are superlinear in it.
const FUNCTION_BYTES_MAX: u64 = 1 << 20;
/// Types, imports, exports, globals, tables, segments and what else is declared, at all depths.
const DECLARATIONS_MAX: u64 = 100_000;
/// Instance and component types that one section of types may hold inside other types. A reader of
/// types calls itself for each level, and its stack is finite; nested types are rare in components
/// that run.
const NESTED_TYPES_MAX: usize = 200;

/// A page of memory has 64 KiB, where a module says nothing else.
const PAGE_BITS: u32 = 16;

/// What is counted over the whole file.
#[derive(Default)]
struct Counts {
    parts: u64,
    functions: u64,
    declarations: u64,
    memory_bytes: u64,
}

/// Checks a component file against the bounds above. It need not be valid: what can't be read is
/// left to the validator, which refuses it. Gives the bytes that all its memories have at first.
///
/// # Errors
/// Which bound it is over.
pub(crate) fn check(file: &[u8]) -> Result<u64, InspectError> {
    let mut counts = Counts::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(file) {
        let payload = payload.map_err(|error| InspectError::Invalid(error.to_string()))?;
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            let what = "levels of components inside components";
            return Err(too_many(what, DEPTH_MAX as u64));
        }
        counts.add(file, &payload)?;
    }
    Ok(counts.memory_bytes)
}

impl Counts {
    fn add(&mut self, file: &[u8], payload: &Payload<'_>) -> Result<(), InspectError> {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => self.parts += 1,
            Payload::InstanceSection(section) => self.parts += u64::from(section.count()),
            Payload::ComponentInstanceSection(section) => {
                self.parts += u64::from(section.count());
            }
            Payload::FunctionSection(section) => self.functions += u64::from(section.count()),
            Payload::CodeSectionEntry(body) => {
                let bytes = body.range().len() as u64;
                if bytes > FUNCTION_BYTES_MAX {
                    let what = "bytes in the body of one function";
                    return Err(too_many(what, FUNCTION_BYTES_MAX));
                }
            }
            Payload::ComponentTypeSection(section) => check_nesting(file, section)?,
            Payload::MemorySection(section) => {
                for memory in section.clone().into_iter().flatten() {
                    let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(PAGE_BITS));
                    let bytes = memory.initial.saturating_mul(page.unwrap_or(u64::MAX));
                    self.memory_bytes = self.memory_bytes.saturating_add(bytes);
                }
            }
            _ => {}
        }
        self.declarations += u64::from(declarations(payload));
        let over = [
            (
                self.parts,
                PARTS_MAX,
                "components, modules and instances inside it",
            ),
            (self.functions, FUNCTIONS_MAX, "functions"),
            (
                self.declarations,
                DECLARATIONS_MAX,
                "types, imports, exports and other declarations",
            ),
        ];
        match over.into_iter().find(|(count, max, _)| count > max) {
            Some((_, max, what)) => Err(too_many(what, max)),
            None => Ok(()),
        }
    }
}

/// How many things a section says that it declares, beside parts and functions.
fn declarations(payload: &Payload<'_>) -> u32 {
    match payload {
        Payload::TypeSection(section) => section.count(),
        Payload::ImportSection(section) => section.count(),
        Payload::TableSection(section) => section.count(),
        Payload::MemorySection(section) => section.count(),
        Payload::TagSection(section) => section.count(),
        Payload::GlobalSection(section) => section.count(),
        Payload::ExportSection(section) => section.count(),
        Payload::ElementSection(section) => section.count(),
        Payload::DataSection(section) => section.count(),
        Payload::CoreTypeSection(section) => section.count(),
        Payload::ComponentAliasSection(section) => section.count(),
        Payload::ComponentTypeSection(section) => section.count(),
        Payload::ComponentCanonicalSection(section) => section.count(),
        Payload::ComponentImportSection(section) => section.count(),
        Payload::ComponentExportSection(section) => section.count(),
        _ => 0,
    }
}

/// Bounds how deep types stand inside types, without reading them: reading is what has to be
/// bounded. Inside a type, an instance or component type is the byte 0x01 and then 0x42 or 0x41
/// (Component Model `Binary.md`, "instancedecl"); other things that look so are few.
fn check_nesting(
    file: &[u8],
    section: &ComponentTypeSectionReader<'_>,
) -> Result<(), InspectError> {
    let bytes = file.get(section.range()).unwrap_or_default();
    let nested = bytes
        .windows(2)
        .filter(|pair| matches!(pair, [0x01, 0x41 | 0x42]))
        .count();
    if nested > NESTED_TYPES_MAX {
        let what = "types inside types";
        return Err(too_many(what, NESTED_TYPES_MAX as u64));
    }
    Ok(())
}

fn too_many(what: &'static str, max: u64) -> InspectError {
    InspectError::TooMany { what, max }
}

#[cfg(test)]
mod tests {
    use haar_conformance_artifacts as artifacts;

    use crate::inspect::inspect;

    fn refusal(file: &[u8]) -> String {
        inspect(file).unwrap_err().to_string()
    }

    #[test]
    fn a_component_with_too_much_of_anything_is_refused_with_the_limit() {
        for (file, expected) in [
            (
                artifacts::component_with_imports(10_000),
                "more than 1000 imports",
            ),
            (
                artifacts::component_with_exports(10_000),
                "more than 1000 exports",
            ),
            (
                artifacts::component_with_nested_instances(10_000),
                "more than 1000 components, modules and instances inside it",
            ),
            (
                artifacts::component_nested_deeply(1_000),
                "more than 32 levels of components inside components",
            ),
            (
                artifacts::component_with_functions(100_001),
                "more than 100000 functions",
            ),
            (
                artifacts::component_with_function_of(1 << 20),
                "more than 1048576 bytes in the body of one function",
            ),
            (
                artifacts::component_with_types(100_001),
                "more than 100000 types, imports, exports and other declarations",
            ),
            (
                artifacts::component_with_types_nested_deeply(100_000),
                "more than 200 types inside types",
            ),
        ] {
            assert_eq!(refusal(&file), expected);
        }
    }

    #[test]
    fn a_component_at_the_limits_is_not_refused() {
        for file in [
            artifacts::component_with_imports(1_000),
            artifacts::component_with_exports(999),
            artifacts::component_with_nested_instances(999),
            artifacts::component_nested_deeply(32),
            artifacts::component_with_functions(100_000),
            artifacts::component_with_function_of((1 << 20) - 16),
            artifacts::component_with_types(99_000),
            artifacts::component_with_types_nested_deeply(199),
        ] {
            inspect(&file).unwrap();
        }
    }

    #[test]
    fn names_that_are_no_text_are_refused() {
        for file in [
            artifacts::component_with_invalid_utf8_name(),
            artifacts::component_with_invalid_utf8_export(),
            artifacts::component_with_invalid_utf8_section(),
        ] {
            assert!(refusal(&file).contains("UTF-8"), "{}", refusal(&file));
        }
    }

    #[test]
    fn a_file_that_only_hurts_its_compiler_is_not_for_us_to_refuse() {
        inspect(&artifacts::compile_bomb()).unwrap();
        inspect(&artifacts::component_with_doubling_instances(30)).unwrap();
    }
}

//! The artifacts are what the conformance cases take them for.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeSet;

use haar_conformance_artifacts as artifacts;
use haar_protocol::grants::{Grants, SystemPart, lacking};
use wasmparser::{Parser, Payload, Validator};

/// Names of what the outermost component of `wasm` imports and exports.
fn surface(wasm: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(
                    section
                        .into_iter()
                        .map(|import| import.unwrap().name.name.to_owned()),
                );
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(
                    section
                        .into_iter()
                        .map(|export| export.unwrap().name.name.to_owned()),
                );
            }
            _ => {}
        }
    }
    (imports, exports)
}

#[test]
fn every_artifact_is_a_component_that_exports_the_whole_contract() {
    for (name, path) in artifacts::ALL {
        let wasm = artifacts::read(path);
        Validator::new().validate_all(&wasm).unwrap();
        let (_, exports) = surface(&wasm);
        let expected = [
            "haar:local/handler@0.1.0",
            "haar:local/lifecycle@0.1.0",
            "haar:local/ticks@0.1.0",
        ];
        // It knows nothing of the SDK, which exports everything.
        let expected = if name == "plain" {
            &expected[..1]
        } else {
            &expected
        };
        assert_eq!(exports, expected, "{name}");
    }
}

#[test]
fn every_agent_offers_what_the_artifacts_import() {
    for (name, path) in artifacts::ALL {
        let (imports, _) = surface(&artifacts::read(path));
        let grants = Grants {
            key_value: name.starts_with("key_value") || ["costs", "ledger"].contains(&name),
            system: match ["system", "fleet_sampler"].contains(&name) {
                true => SystemPart::all(),
                false => BTreeSet::new(),
            },
            ..Grants::default()
        };
        let lacking = lacking(&imports, &grants);
        assert_eq!(
            lacking, [""; 0],
            "{name} needs more than every agent offers"
        );
    }
}

#[test]
fn the_examples_stay_small() {
    let with_debug_information = |name: &str| name == "trap_with_debug_information";
    let small = artifacts::ALL.iter();
    for (name, path) in small.filter(|(name, _)| !with_debug_information(name)) {
        let kibibytes = artifacts::read(path).len() / 1024;
        assert!(kibibytes < 256, "{name} has grown to {kibibytes} KiB");
    }
}

#[test]
fn what_no_agent_may_run_is_valid_all_the_same() {
    for wasm in [
        artifacts::core_module(),
        artifacts::empty_component(),
        artifacts::component_with_unknown_import(),
        artifacts::spinning_at_instantiation(),
        artifacts::component_with_memory(65_535, 1),
        artifacts::component_with_table(10_000_000),
        artifacts::component_growing_table(10_000),
    ] {
        Validator::new().validate_all(&wasm).unwrap();
    }
    assert!(Parser::is_core_wasm(&artifacts::core_module()));
    let (imports, _) = surface(&artifacts::component_with_unknown_import());
    assert_eq!(
        lacking(&imports, &Grants::default()),
        ["acme:unknown/thing@1.0.0"]
    );
}

#[test]
fn what_hurts_by_its_size_is_valid_all_the_same() {
    for wasm in [
        artifacts::compile_bomb(),
        artifacts::component_with_imports(10_000),
        artifacts::component_with_exports(10_000),
        artifacts::component_with_nested_instances(999),
        artifacts::component_with_doubling_instances(10),
        artifacts::component_nested_deeply(50),
        artifacts::component_with_functions(200_000),
        artifacts::component_with_function_of(2 << 20),
        artifacts::component_with_types(200_000),
    ] {
        Validator::new().validate_all(&wasm).unwrap();
    }
    let (imports, _) = surface(&artifacts::component_with_imports(10_000));
    let (_, exports) = surface(&artifacts::component_with_exports(10_000));
    assert_eq!((imports.len(), exports.len()), (10_000, 10_000));
}

#[test]
fn names_that_are_no_text_are_the_only_fault_of_their_files() {
    for wasm in [
        artifacts::component_with_invalid_utf8_name(),
        artifacts::component_with_invalid_utf8_export(),
        artifacts::component_with_invalid_utf8_section(),
    ] {
        let error = Validator::new().validate_all(&wasm).err().unwrap();
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }
}

#[test]
fn the_manifest_of_the_example_is_valid() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/fleet-telemetry/application.yaml"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let manifest = haar_protocol::manifest::parse(&text, "application.yaml").unwrap();
    assert_eq!(manifest.microservices.len(), 3);
}

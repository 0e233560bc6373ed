//! `haar build` on projects that are not as they should be.

use crate::haar::Workplace;

/// A package that is a workspace of its own, so that it does not look for one above.
fn package(workplace: &Workplace, kind: &str, source: &str) {
    workplace.write("Cargo.toml", format!("[package]\nname = \"pump_watch\"\nversion = \"0.3.0\"\nedition = \"2024\"\n{kind}\n[workspace]\n"));
    workplace.write("src/lib.rs", source);
}

#[test]
fn what_is_no_project_is_told_apart() {
    let workplace = Workplace::new();
    insta::assert_snapshot!(workplace.haar("build").all());
    insta::assert_snapshot!(workplace.haar("build missing").all());
    package(&workplace, "", "");
    insta::assert_snapshot!(workplace.haar("build").all());
    workplace.write("Cargo.toml", "[package\n");
    assert_eq!(workplace.haar("build").code, 1);
}

#[test]
fn a_program_that_does_not_compile_is_an_error_with_the_compilers_words() {
    let workplace = Workplace::new();
    package(
        &workplace,
        "[lib]\ncrate-type = [\"cdylib\"]",
        "fn broken() -> u32 { \"text\" }",
    );
    let failed = workplace.haar("build --quiet");
    assert_eq!(failed.code, 1);
    assert!(
        failed.stderr.contains("mismatched types"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stderr.ends_with(
            "Error: `pump_watch` does not compile\nHint: What the compiler says stands above.\n"
        ),
        "{}",
        failed.stderr
    );
}

#[test]
fn a_plain_library_becomes_a_named_component() {
    let workplace = Workplace::new();
    package(
        &workplace,
        "[lib]\ncrate-type = [\"cdylib\"]",
        "#[unsafe(no_mangle)] pub extern \"C\" fn unused() {}",
    );
    let built = workplace.haar("build --quiet --output json").ok().json();
    assert_eq!(built["name"], "pump-watch");
    assert_eq!(built["version"], "0.3.0");
    assert!(workplace.path("target/haar/pump-watch.wasm").is_file());
    let again = workplace
        .haar("build --quiet --output json -o elsewhere/module.wasm")
        .ok()
        .json();
    assert_eq!(
        again["digest"], built["digest"],
        "the same sources make the same module"
    );
    assert!(workplace.path("elsewhere/module.wasm").is_file());
}

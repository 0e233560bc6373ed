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
    assert!(
        built["file"]
            .as_str()
            .unwrap()
            .ends_with("/haar/pump-watch.wasm"),
        "{built}"
    );
    let again = workplace
        .haar("build --quiet -o json --out elsewhere/module.wasm")
        .ok()
        .json();
    assert_eq!(
        again["digest"], built["digest"],
        "the same sources make the same module"
    );
    assert!(workplace.path("elsewhere/module.wasm").is_file());
}

/// A directory for `PATH` with the scripts given as name and body, and nothing else.
fn path_with(workplace: &Workplace, name: &str, scripts: &[(&str, &str)]) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(workplace.path(name)).unwrap();
    for (script, body) in scripts {
        let file = workplace.write(&format!("{name}/{script}"), format!("#!/bin/sh\n{body}\n"));
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    workplace.path(name)
}

#[test]
fn a_missing_target_is_added_or_the_way_to_it_told() {
    let workplace = Workplace::new();
    package(&workplace, "[lib]\ncrate-type = [\"cdylib\"]", "");
    let there = workplace.path("there");
    let rustc = format!("echo {}", there.display());
    let build = |path: std::path::PathBuf| {
        let mut command = workplace.command();
        command
            .env("PATH", path)
            .env("CARGO", env!("CARGO"))
            .arg("build");
        workplace.output(command)
    };

    let without = build(path_with(
        &workplace,
        "without-rustup",
        &[("rustc", &rustc)],
    ));
    assert_eq!(without.code, 1);
    insta::assert_snapshot!(without.stderr);

    let offline = build(path_with(
        &workplace,
        "offline",
        &[("rustc", &rustc), ("rustup", "exit 1")],
    ));
    assert!(
        offline.stderr.contains("rustup could not add the target"),
        "{}",
        offline.stderr
    );

    let adds = format!(
        "[ \"$*\" = \"target add wasm32-wasip2\" ] && /bin/mkdir {}",
        there.display()
    );
    let added = build(path_with(
        &workplace,
        "online",
        &[("rustc", &rustc), ("rustup", &adds)],
    ));
    // This rustc compiles nothing, so the build ends where the compiler would begin.
    assert!(
        added
            .stderr
            .contains("adding it by `rustup target add wasm32-wasip2`"),
        "{}",
        added.stderr
    );
    assert!(!added.stderr.contains("could not add"), "{}", added.stderr);
    assert!(there.is_dir());
}

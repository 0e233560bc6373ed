//! `haar new` and what it makes.

use std::process::Command;

use crate::haar::Workplace;
use crate::program::{BUILD, output_within};

/// Where tests build: kept from run to run, because a build takes long.
fn target_folder() -> String {
    format!("{}/generated", env!("CARGO_TARGET_TMPDIR"))
}

#[test]
fn a_new_project_tests_and_builds_with_nothing_but_the_binary() {
    let workplace = Workplace::new();
    workplace.haar("new my-filter").ok();
    let project = workplace.path("my-filter");
    for file in [
        "Cargo.toml",
        "src/lib.rs",
        "app.yaml",
        ".gitignore",
        "sdk/guest-sdk/Cargo.toml",
        "sdk/wit/world.wit",
        "sdk/LICENSE",
    ] {
        assert!(project.join(file).is_file(), "{file}");
    }
    assert!(
        workplace
            .read("my-filter/Cargo.toml")
            .contains("name = \"my-filter\"")
    );
    for (name, content) in files_below(&project) {
        let is_ours = !name.contains("/sdk/");
        assert!(
            !is_ours || !content.contains("{{"),
            "{name} has a mark that was not filled in"
        );
    }

    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet"])
        .current_dir(&project)
        .env("CARGO_TARGET_DIR", target_folder());
    let tests = output_within(&mut test, BUILD);
    assert!(
        tests.status.success(),
        "{}{}",
        String::from_utf8_lossy(&tests.stdout),
        String::from_utf8_lossy(&tests.stderr)
    );

    let mut build = workplace.command();
    build
        .args(["build", "my-filter", "--output", "json", "--quiet"])
        .env("CARGO_TARGET_DIR", target_folder());
    let built = workplace.output_within(build, BUILD).ok().json();
    assert_eq!(built["name"], "my-filter");
    assert_eq!(built["version"], "0.1.0");
    assert!(
        built["imports"]
            .as_array()
            .unwrap()
            .iter()
            .any(|import| import == "haar:local/messaging@0.1.0"),
        "{built}"
    );
    assert!(
        built["exports"]
            .as_array()
            .unwrap()
            .iter()
            .any(|export| export == "haar:local/handler@0.1.0"),
        "{built}"
    );
    assert!(built["bytes"].as_u64().unwrap() < 200_000, "{built}");

    // What was built is what the site takes.
    workplace.haar("key new me").ok();
    let file = built["file"].as_str().unwrap();
    workplace
        .haar(&format!("sign {file} --key me.key --out signed.wasm"))
        .ok();
    workplace.haar("verify signed.wasm --key me.pub").ok();
    haar_protocol::manifest::parse(&workplace.read("my-filter/app.yaml"), "app.yaml").unwrap();
}

#[test]
fn what_is_there_is_left_alone() {
    let workplace = Workplace::new();
    workplace.write("my-filter/notes.txt", "mine");
    insta::assert_snapshot!(workplace.haar("new my-filter").all());
    assert_eq!(files_below(&workplace.path("my-filter")).len(), 1);
    workplace.write("file", "mine");
    assert_eq!(workplace.haar("new my-filter --path file").code, 3);
    workplace.haar("new my-filter --path other/place").ok();
    assert!(workplace.path("other/place/Cargo.toml").is_file());
}

#[test]
fn names_that_cargo_refuses_are_refused() {
    let workplace = Workplace::new();
    insta::assert_snapshot!(workplace.haar("new test").all());
    assert_eq!(workplace.haar("new 4pumps").code, 2);
    assert_eq!(workplace.haar("new ../escape").code, 2);
    assert_eq!(files_below(workplace.folder()).len(), 0);
}

fn files_below(folder: &std::path::Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push((
                path.display().to_string(),
                std::fs::read_to_string(&path).unwrap(),
            ));
        }
    }
    found
}

//! What people's fingers know from other tools: short forms, names behind a kind, times with units,
//! completion of names by a real shell, colours.

use std::process::Command;

use haar_conformance_artifacts as artifacts;
use serde_json::Value;

use crate::program::{COMMAND, output_within};
use crate::system::{System, run};

const APP: &str = "
api_version: haar/v1
kind: Application
name: plant
microservices:
  - { name: echo, module: echo@0.1.0, place: { node: one }, inlets: { in: text/plain }, outlets: { out: text/plain } }
";

fn with_plant() -> System {
    let system = System::start();
    system.push("echo", artifacts::ECHO);
    system.place.write("app.yaml", APP);
    system.haar("apply --wait 60s app.yaml").ok();
    system.eventually("get ms -o json", |answer| run(answer, 1));
    system
}

fn names(answer: &Value) -> Vec<&str> {
    let items = answer["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect()
}

/// What the script for bash offers at the end of a line.
fn completed(system: &System, line: &str) -> Vec<String> {
    let script = r#"
        # What people have set must not matter.
        shopt -s nullglob
        source <("$HAAR" completions bash)
        COMP_LINE="$1" COMP_POINT="${#1}"
        # Readline's words end at these.
        typed="${1##*[[:space:]:=@]}"
        _haar "$HAAR" "$typed"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash", line])
        .env("HAAR", env!("CARGO_BIN_EXE_haar"))
        .env("HAAR_CONTEXT", system.place.path("site/context.toml"))
        .current_dir(system.place.folder());
    let output = output_within(&mut bash, COMMAND);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn things_are_got_by_their_names_in_every_form() {
    let system = with_plant();
    for line in [
        "get nodes one -o json",
        "get node one -ojson",
        "get no/one -o json",
        "get node/one one --output json",
    ] {
        assert_eq!(names(&system.haar(line).ok().json()), ["one"], "{line}");
    }
    for line in [
        "get ms plant/echo",
        "get ms/plant/echo",
        "get microservice echo",
        "describe ms/plant/echo",
        "get module/echo",
        "get mod echo@0.1.0",
        "get app plant",
        "describe app/plant",
        "get pub/team",
    ] {
        let shown = system.haar(line).ok().stdout;
        assert!(
            shown.contains("echo") || shown.contains("plant") || shown.contains("team"),
            "{shown}"
        );
    }
    // What is there is shown all the same.
    let some = system.haar("get nodes one onne");
    assert_eq!(some.code, 4);
    assert!(some.stdout.contains("online"), "{}", some.stdout);
    assert!(
        some.stderr.contains("did you mean `one`?"),
        "{}",
        some.stderr
    );
    assert_eq!(system.haar("get nodes two").stdout, "");
    let none = system.haar("get nodes two -o json");
    assert_eq!(
        (none.code, &none.json()["items"]),
        (4, &serde_json::json!([]))
    );
    let error: Value = serde_json::from_str(&none.stderr).unwrap();
    assert_eq!(error["code"], "unknown_node");
    assert_eq!(system.haar("get ms plant/ech").code, 4);

    let yaml = system.haar("get nodes one -o yaml").ok().stdout;
    assert!(yaml.starts_with("items:\n- "), "{yaml}");
    assert!(yaml.contains("\n  name: one\n"), "{yaml}");
    assert_eq!(system.haar("get nodes -o name").ok().stdout, "node/one\n");
    assert_eq!(
        system.haar("get ms -o name").ok().stdout,
        "microservice/plant/echo\n"
    );
    assert_eq!(system.haar("version -o name").code, 2);
}

#[test]
fn times_have_units_wherever_one_is_taken() {
    let system = with_plant();
    let kinds = |line: &str| -> Vec<String> {
        let answer = system.haar(line).ok().json();
        let items = answer["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = kinds("get events -o json --tail 10000");
    assert!(all.contains(&"publisher_trusted".to_owned()), "{all:?}");
    let since = kinds("get ev --since 1h -o json");
    assert!(since.starts_with(&all), "{since:?}");
    assert_eq!(kinds("get events --since 10m --tail 1 -o json").len(), 1);
    system.haar("logs plant --since 10min").ok();
    system.haar("apply --wait=60s app.yaml").ok();
    system.haar("apply app.yaml --wait").ok();
    for line in [
        "get events --since soon",
        "get nodes --since 1h",
        "logs --since 10",
        "apply --wait app.yaml",
    ] {
        assert_eq!(system.haar(line).code, 2, "{line}");
    }
}

#[test]
fn bash_completes_names_of_what_the_site_has() {
    let system = with_plant();
    for (line, expected) in [
        ("haar get nod", "nodes"),
        ("haar get nodes o", "one"),
        ("haar describe node/o", "node/one"),
        ("haar describe ms plant/", "plant/echo"),
        ("haar logs --node ", "one"),
        // Bash's own words end at these signs, and it replaces only the last of them.
        ("haar describe module echo@0", "0.1.0"),
        ("haar get nodes --output=js", "json"),
        ("haar delete publisher t", "team"),
        ("haar get nodes nothing", ""),
        // Its explanation has signs of a pattern of files.
        ("haar get events --tai", "--tail"),
    ] {
        assert_eq!(completed(&system, line).join(" "), expected, "{line}");
    }
}

#[test]
fn completion_of_names_is_silent_without_a_site() {
    let place = crate::haar::Workplace::new();
    let found = place.haar("complete -- get nodes x").ok();
    assert_eq!(found.stdout + &found.stderr, "");
    let context = "name = \"x\"\nurl = \"http://127.0.0.1:1\"\ntoken = \"x\"\nca_pem = \"\"\n";
    place.write("context.toml", context);
    let found = place
        .haar("complete -- --context context.toml get nodes x")
        .ok();
    assert_eq!(found.stdout + &found.stderr, "");
    // Files are for the shell.
    assert_eq!(place.haar("complete -- push x").code, 1);
}

#[test]
fn colours_are_for_terminals_and_whoever_asks_for_them() {
    let system = with_plant();
    let green = "\u{1b}[32monline\u{1b}[0m";
    let haar = |line: &str| system.haar(line).ok().stdout;
    assert!(!haar("get nodes").contains('\u{1b}'));
    assert!(haar("get nodes --color always").contains(green));
    assert!(!haar("get nodes --color never").contains('\u{1b}'));
    assert!(!haar("get nodes --color always -o json").contains('\u{1b}'));
    let plain = haar("describe node one --color always");
    assert!(plain.contains(green), "{plain}");
}

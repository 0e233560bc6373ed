//! Help, usage errors, completions, versions.

use std::collections::BTreeSet;

use crate::haar::Workplace;

/// Every command that has a help text of ours, in the order of `haar --help`.
const COMMANDS: [&str; 37] = [
    "new",
    "build",
    "key",
    "key new",
    "sign",
    "verify",
    "push",
    "apply",
    "get",
    "describe",
    "describe node",
    "describe module",
    "describe microservice",
    "describe route",
    "logs",
    "dead-letters",
    "dead-letters list",
    "dead-letters show",
    "dead-letters replay",
    "dead-letters drop",
    "delete",
    "delete application",
    "delete module",
    "delete node",
    "delete publisher",
    "node",
    "node token",
    "node rotate-key",
    "node delete",
    "publisher",
    "publisher trust",
    "publisher delete",
    "up",
    "demo",
    "schema",
    "completions",
    "version",
];

#[test]
fn help_is_what_people_expect() {
    let workplace = Workplace::new();
    let mut text = String::new();
    for command in [""].into_iter().chain(COMMANDS) {
        let help = workplace.haar(&format!("{command} --help")).ok();
        assert_eq!(help.stderr, "");
        text.push_str(&format!("$ haar {command} --help\n{}\n", help.stdout));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn each_kind_that_is_listed_is_described_and_the_other_way_round() {
    let place = Workplace::new();
    let text = place.haar("get --help").ok().stdout;
    let kinds = text.lines().filter_map(|line| {
        let (kind, _) = line.trim().strip_prefix("- ")?.split_once(':')?;
        (kind.ends_with('s') && line.starts_with("          ")).then(|| kind.to_owned())
    });
    let kinds: BTreeSet<String> = kinds.collect();
    assert!(
        kinds.contains("routes") && kinds.contains("instances"),
        "{text}"
    );
    // A list tells all of an event.
    for kind in kinds.iter().filter(|kind| *kind != "events") {
        let one = kind.trim_end_matches('s');
        place.haar(&format!("describe {one} --help")).ok();
    }
    // There is one site.
    let text = place.haar("describe --help").ok().stdout;
    let all = text.split("Commands:").nth(1).unwrap();
    let described = all
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("  "));
    let words = described.filter_map(|line| line.split_whitespace().next());
    for one in words.filter(|word| !["site", "help"].contains(word)) {
        assert!(kinds.contains(&format!("{one}s")), "{one}");
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let workplace = Workplace::new();
    for line in [
        "",
        "frobnicate",
        "get",
        "get nothing",
        "push",
        "verify x.wasm",
        "new Bad_Name",
        "node token --expires soon",
        "demo --seconds 0",
        "dead-letters replay --node one",
        "dead-letters replay 1",
        "dead-letters drop 1 --all --application a --microservice b --node one",
        "dead-letters drop --all --node one",
        "dead-letters drop --all --application a --microservice b --node one",
        "dead-letters list --microservice b",
        "get nodes --state wrong",
        "get nodes -l role",
        "describe route",
    ] {
        assert_eq!(workplace.haar(line).code, 2, "{line}");
    }
    insta::assert_snapshot!(workplace.haar("new Bad_Name").all());
    insta::assert_snapshot!(workplace.haar("get nothing --output json").all());
    insta::assert_snapshot!(workplace.haar("get nodes --application fleet").all());
}

#[test]
fn completions_are_made_for_every_shell() {
    let workplace = Workplace::new();
    // The first three ask `haar` each time, which knows the words of a site, too.
    for (shell, text) in [
        ("bash", "complete --"),
        ("zsh", "complete --"),
        ("fish", "complete --"),
        ("powershell", "publisher"),
        ("elvish", "publisher"),
    ] {
        let script = workplace.haar(&format!("completions {shell}")).ok();
        assert!(script.stdout.contains(text), "{shell}: {}", script.stdout);
    }
}

//! Help, usage errors, completions, versions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(
            workplace
                .haar(&format!("completions {shell}"))
                .ok()
                .stdout
                .contains("publisher"),
            "{shell}"
        );
    }
}

#[test]
fn the_version_is_told_to_people_and_programs() {
    let workplace = Workplace::new();
    assert!(
        workplace
            .haar("version")
            .ok()
            .stdout
            .starts_with(concat!("haar ", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(
        workplace.haar("version --output json").ok().json()["version"],
        env!("CARGO_PKG_VERSION")
    );
    assert!(workplace.haar("--version").ok().stdout.starts_with("haar "));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::io::Read as _;
    let workplace = Workplace::new();
    let mut child = workplace
        .command()
        .arg("schema")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    child.wait().unwrap();
    assert_eq!(stderr, "");
}

/// What errors and hints of all programs say in backticks: commands of `haar` and `haar-agent`.
fn commands_in_sources() -> BTreeSet<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders: Vec<_> = ["cli", "controller", "host", "protocol", "relay", "engine"]
        .iter()
        .map(|part| workspace.join(part).join("src"))
        .collect();
    let mut commands = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let quoted = text
                    .lines()
                    .flat_map(|line| line.split('`').skip(1).step_by(2));
                let commands_of_ours = quoted
                    .filter(|words| words.starts_with("haar ") || words.starts_with("haar-agent "));
                commands.extend(commands_of_ours.map(str::to_owned));
            }
        }
    }
    commands
}

#[test]
fn commands_and_options_that_errors_and_hints_name_exist() {
    let place = Workplace::new();
    let commands = commands_in_sources();
    assert!(commands.len() > 20, "{commands:?}");
    let mut helps = BTreeMap::new();
    for command in &commands {
        let words = command.split_whitespace().map(|word| match word {
            "haar-agent" => "agent",
            word => word,
        });
        let words: Vec<_> = words.filter(|word| *word != "haar").collect();
        let is_name = |word: &&&str| {
            word.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        let names: Vec<_> = words
            .iter()
            .take_while(|word| is_name(word) && !word.starts_with('-'))
            .copied()
            .collect();
        let help = helps.entry(names.clone()).or_insert_with(|| {
            let help = place.haar(&format!("{} --help", names.join(" ")));
            assert_eq!(help.code, 0, "{command}: {}", help.stderr);
            help.stdout
        });
        let options = words.iter().filter(|word| word.starts_with("--"));
        for option in options {
            let option = option.split('=').next().unwrap();
            assert!(help.contains(option), "`{command}`: no {option} in {help}");
        }
    }
}

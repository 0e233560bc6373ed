//! Commands against a real controller, which is this same binary.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::haar::{Output, Workplace};
use crate::modules;
use crate::program::{DEADLINE, Program};

/// A controller that runs until it is dropped.
struct Site {
    workplace: Workplace,
    controller: Program,
    context: PathBuf,
}

impl Site {
    fn start() -> Self {
        let workplace = Workplace::new();
        let mut command = workplace.command();
        command.args([
            "controller",
            "run",
            "--data",
            "controller",
            "--name",
            "plant",
        ]);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--relay-listen",
            "127.0.0.1:0",
            "--announce",
            "--stop-on-stdin-close",
        ]);
        let mut controller = Program::start(command.stdin(Stdio::piped()));
        let ready = controller.announcement();
        let context = workplace.folder().join(ready["context"].as_str().unwrap());
        Self {
            workplace,
            controller,
            context,
        }
    }

    fn haar(&self, line: &str) -> Output {
        let mut command = self.workplace.command();
        command
            .env("HAAR_CONTEXT", &self.context)
            .env("HOME", self.workplace.folder())
            .args(line.split_whitespace());
        self.workplace.output(command)
    }

    /// A module of a trusted publisher, pushed.
    fn with_module(self) -> Self {
        self.workplace.haar("key new acme").ok();
        self.workplace.write(
            "filter.wasm",
            modules::named("filter", "1.0.0", &["haar:local/messaging@0.1.0"]),
        );
        self.workplace.haar("sign filter.wasm --key acme.key").ok();
        self.haar("publisher trust acme acme.pub").ok();
        self.haar("push filter.wasm").ok();
        self
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.controller.stop();
    }
}

#[test]
fn an_empty_site_says_what_to_do_next() {
    let site = Site::start();
    let mut text = String::new();
    for kind in [
        "nodes",
        "modules",
        "applications",
        "microservices",
        "routes",
        "publishers",
    ] {
        text.push_str(&format!(
            "$ haar get {kind}\n{}\n",
            site.haar(&format!("get {kind}")).ok().stdout
        ));
        assert_eq!(
            site.haar(&format!("get {kind} --output json")).ok().json()["items"],
            serde_json::json!([])
        );
    }
    insta::assert_snapshot!(text);
    assert!(site.haar("version --site").ok().stdout.contains("plant"));
}

#[test]
fn a_module_is_pushed_once_and_found_by_name_and_digest() {
    let site = Site::start().with_module();
    assert!(
        site.haar("push filter.wasm")
            .ok()
            .stdout
            .starts_with("Already there: filter@1.0.0")
    );
    let module = site
        .haar("describe module filter@1.0.0 --output json")
        .ok()
        .json();
    assert_eq!(module["publishers"][0], "acme");
    let digest = module["digest"].as_str().unwrap();
    site.haar(&format!("describe module {digest}")).ok();
    site.haar(&format!("describe module {}", &digest[7..15]))
        .ok();
    assert_eq!(site.haar("describe module filter@2.0.0").code, 4);
    assert_eq!(site.haar("describe module what").code, 2);
    site.haar("describe publisher acme").ok();
    assert_eq!(site.haar("describe publisher other").code, 4);
    site.haar(&format!("delete module {digest}")).ok();
    assert_eq!(site.haar(&format!("delete module {digest}")).code, 4);
}

#[test]
fn a_large_module_is_pushed_in_parts() {
    let site = Site::start().with_module();
    site.workplace.write("large.wasm", modules::large(5 << 20));
    site.workplace.haar("sign large.wasm --key acme.key").ok();
    let pushed = site.haar("push large.wasm --output json").ok().json();
    assert!(pushed[0]["bytes"].as_u64().unwrap() > 5 << 20);
}

#[test]
fn a_module_of_a_stranger_is_refused_with_the_sites_words() {
    let site = Site::start();
    site.workplace.haar("key new stranger").ok();
    site.workplace
        .write("filter.wasm", modules::named("filter", "1.0.0", &[]));
    site.workplace
        .haar("sign filter.wasm --key stranger.key")
        .ok();
    let refused = site.haar("push filter.wasm --output json");
    assert_eq!(refused.code, 3);
    let error: Value = serde_json::from_str(refused.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(error["code"], "untrusted");
    assert!(error["hint"].is_string());
}

#[test]
fn a_token_is_the_only_thing_on_stdout() {
    let site = Site::start();
    let made = site
        .haar("node token --name gateway --label role=gateway --expires 10min")
        .ok();
    assert!(
        made.stdout.starts_with("haar1.") && made.stdout.lines().count() == 1,
        "{}",
        made.stdout
    );
    let made = site.haar("node token --output json").ok().json();
    assert!(made["token"].as_str().unwrap().starts_with("haar1."));
}

#[test]
fn what_the_site_does_not_have_is_not_found() {
    let site = Site::start();
    for line in [
        "describe node nobody",
        "describe application none",
        "delete node nobody",
        "delete application none",
        "delete publisher none",
        "describe microservice none",
    ] {
        let output = site.haar(line);
        assert_eq!(output.code, 4, "{line}: {}", output.stderr);
    }
}

#[test]
fn an_application_is_applied_shown_and_deleted() {
    let site = Site::start().with_module();
    site.workplace.write(
        "app.yaml",
        "api_version: haar/v1\nkind: Application\nname: fleet\nmicroservices:\n  - name: filter\n    module: filter@1.0.0\n    place: { labels: {} }\n",
    );
    let dry = site.haar("apply -f app.yaml --dry-run --output json");
    if dry.code == 3 {
        // Placing on no node may be refused; then there is nothing more to see here.
        return;
    }
    assert_eq!(dry.ok().json()["dry_run"], true);
    site.haar("apply app.yaml --no-wait").ok();
    site.haar("describe application fleet").ok();
    assert_eq!(
        site.haar("get applications --output json").ok().json()["items"][0]["name"],
        "fleet"
    );
    site.haar("get events").ok();
    site.haar("logs fleet").ok();
    site.haar("delete application fleet").ok();
}

#[test]
fn another_site_at_the_same_address_is_told() {
    let (one, other) = (Site::start(), Site::start());
    let of = |site: &Site| -> toml::Table {
        std::fs::read_to_string(&site.context)
            .unwrap()
            .parse()
            .unwrap()
    };
    let mut context = of(&one);
    context.insert("url".into(), of(&other)["url"].clone());
    one.workplace.write("mixed.toml", context.to_string());
    let refused = one.workplace.haar("get nodes --context mixed.toml");
    assert_eq!(refused.code, 5);
    assert!(
        refused.stderr.contains("is another site"),
        "{}",
        refused.stderr
    );
    // A wrong token is something else.
    let mut context = of(&one);
    context.insert("token".into(), "wrong".into());
    one.workplace.write("wrong.toml", context.to_string());
    assert_eq!(one.workplace.haar("get nodes --context wrong.toml").code, 6);
}

#[test]
fn ctrl_c_ends_a_command_that_goes_on_with_its_own_exit_code() {
    let site = Site::start();
    let mut command = site.workplace.command();
    command
        .env("HAAR_CONTEXT", &site.context)
        .args(["get", "nodes", "--watch"]);
    let mut watching = Program::start(&mut command);
    watching.line();
    watching.signal("-INT");
    assert_eq!(watching.output_within(DEADLINE).status.code(), Some(130));
}

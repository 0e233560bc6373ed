//! `haar sign`: who else has signed, what a module is called, and where the result goes.

use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::module::{self, Signatures};
use serde_json::Value;

use crate::haar::Workplace;
use crate::modules;
use crate::program::{COMMAND, DEADLINE, join_within, output_within};

/// A place with the keys `one`, `two` and `three`, always the same.
fn workplace() -> Workplace {
    let workplace = Workplace::new();
    for (seed, name) in [(1, "one"), (2, "two"), (3, "three")] {
        let key = SecretKey::from_seed([seed; 32]);
        workplace.write(&format!("{name}.key"), key.to_pem());
        workplace.write(&format!("{name}.pub"), key.public().to_pem());
    }
    workplace.write("m.wasm", modules::named("filter", "1.0.0", &[]));
    workplace
}

/// Which of the three keys signed a file.
fn signers(file: &Path) -> Vec<usize> {
    let keys: Vec<PublicKey> = (1..=3)
        .map(|seed| SecretKey::from_seed([seed; 32]).public())
        .collect();
    let file = std::fs::read(file).unwrap();
    let signed_by = module::verify(&file, &keys).unwrap();
    (1..=3)
        .filter(|seed| signed_by.contains(&&keys[seed - 1]))
        .collect()
}

#[test]
fn a_second_signature_is_added_and_the_first_is_shown() {
    let workplace = workplace();
    let file = workplace.path("m.wasm");
    workplace.haar("sign m.wasm --key one.key").ok();
    insta::assert_snapshot!(workplace.haar("sign m.wasm --key two.key").ok().all());
    assert_eq!(signers(&file), [1, 2]);
    let twice = std::fs::read(&file).unwrap();
    workplace.haar("sign m.wasm --key two.key").ok();
    assert_eq!(std::fs::read(&file).unwrap(), twice);
    workplace.haar("verify m.wasm --key one.pub").ok();

    std::fs::remove_file(workplace.path("one.pub")).unwrap();
    insta::assert_snapshot!(workplace.haar("sign m.wasm --key three.key").ok().all());
    let json = workplace
        .haar("sign m.wasm --key three.key --output json")
        .ok()
        .json();
    assert_eq!(json["signatures"], 3);
    assert_eq!(json["signers"].as_array().unwrap().len(), 2);

    workplace.haar("sign m.wasm --key two.key --replace").ok();
    assert_eq!(signers(&file), [2]);
}

#[test]
fn signatures_that_are_worth_nothing_any_more_are_spoken_of() {
    let workplace = workplace();
    workplace.haar("sign m.wasm --key one.key").ok();
    let mut changed = std::fs::read(workplace.path("m.wasm")).unwrap();
    let padding = wasm_encoder::CustomSection {
        name: "padding".into(),
        data: b"x".as_slice().into(),
    };
    wasm_encoder::ComponentSection::append_to_component(&padding, &mut changed);
    workplace.write("m.wasm", changed);
    let signed = workplace
        .haar("sign m.wasm --key two.key --output json")
        .ok();
    let warning = signed.json()["warnings"][0].to_string();
    assert!(warning.contains("after others had signed"), "{warning}");
    assert_eq!(signed.stderr, "");
    assert_eq!(signers(&workplace.path("m.wasm")), [2]);
}

#[test]
fn more_than_16_signatures_are_refused() {
    let workplace = workplace();
    let mut file = modules::named("filter", "1.0.0", &[]);
    for seed in 10..26 {
        file = module::sign(&file, &SecretKey::from_seed([seed; 32])).unwrap();
    }
    workplace.write("m.wasm", &file);
    let refused = workplace.haar("sign m.wasm --key one.key");
    assert_eq!(refused.code, 3);
    assert!(refused.stderr.contains("--replace"), "{}", refused.stderr);
    assert_eq!(std::fs::read(workplace.path("m.wasm")).unwrap(), file);
    workplace.haar("sign m.wasm --key one.key --replace").ok();
    assert_eq!(signers(&workplace.path("m.wasm")), [1]);
}

#[test]
fn a_module_of_another_tool_gets_its_name_and_version_under_the_signature() {
    let workplace = workplace();
    workplace.write("m.wasm", modules::component(&[]).finish());
    workplace
        .haar("sign m.wasm --key one.key --out bare.wasm")
        .ok();
    insta::assert_snapshot!(workplace.haar("push bare.wasm").all());
    workplace
        .haar("sign m.wasm --key one.key --name filter --version 1.2.3")
        .ok();
    let verified = workplace
        .haar("verify m.wasm --key one.pub --output json")
        .ok()
        .json();
    assert_eq!(verified["name"], "filter");
    assert_eq!(verified["version"], "1.2.3");
    // The file has a name and version now: repeating them is accepted, others are not.
    let line = "sign m.wasm --key two.key --name filter --version 1.2.3";
    workplace.haar(line).ok();
    assert_eq!(signers(&workplace.path("m.wasm")), [1, 2]);
    let mut text = String::new();
    for line in [
        "sign m.wasm --key two.key --name sampler",
        "sign m.wasm --key two.key --version 2.0.0",
        "sign m.wasm --key two.key --version v2.0",
    ] {
        text += &format!("$ haar {line}\n{}\n", workplace.haar(line).all());
    }
    insta::assert_snapshot!(text);
    assert_eq!(signers(&workplace.path("m.wasm")), [1, 2]);
}

#[test]
fn a_version_that_commands_could_not_name_is_refused_at_push_and_may_be_written_anew() {
    let workplace = workplace();
    for version in ["../..", "01.1.", "1.0", "v1.0.0"] {
        workplace.write("m.wasm", modules::named("filter", version, &[]));
        workplace.haar("sign m.wasm --key one.key").ok();
        let refused = workplace.haar("push m.wasm --output json");
        assert_eq!(refused.code, 3);
        let error: Value = serde_json::from_str(&refused.stderr).unwrap();
        assert_eq!(error["code"], "bad_version", "{error}");
    }
    workplace
        .haar("sign m.wasm --key one.key --version 1.0.0")
        .ok();
    let verified = workplace
        .haar("verify m.wasm --key one.pub --output json")
        .ok()
        .json();
    assert_eq!(verified["version"], "1.0.0");
}

#[test]
fn what_a_manifest_must_grant_is_said_and_is_no_warning() {
    let workplace = workplace();
    let imports = ["wasi:keyvalue/store@0.2.0-draft", "haar:local/system@0.1.0"];
    workplace.write("m.wasm", modules::named("filter", "1.0.0", &imports));
    workplace.haar("sign m.wasm --key one.key").ok();
    let verified = workplace.haar("verify m.wasm --key one.pub").ok();
    insta::assert_snapshot!(verified.all());
    let json = workplace
        .haar("verify m.wasm --key one.pub --output json")
        .ok()
        .json();
    assert_eq!(json["grants"].as_array().unwrap().len(), 2, "{json}");
    assert_eq!(json["warnings"], Value::Null);

    workplace.write(
        "n.wasm",
        modules::named("net", "1.0.0", &["wasi:http/outgoing-handler@0.2.6"]),
    );
    workplace.haar("sign n.wasm --key one.key").ok();
    let pushed = workplace
        .haar("verify n.wasm --key one.pub --output json")
        .ok();
    let warning = pushed.json()["warnings"][0].to_string();
    assert!(warning.contains("no agent offers"), "{warning}");
    assert_eq!(pushed.stderr, "");
}

#[test]
fn links_are_followed_and_stay() {
    let workplace = workplace();
    std::fs::create_dir(workplace.path("out")).unwrap();
    workplace.write("out/real.wasm", modules::named("filter", "1.0.0", &[]));
    let link = |name: &str, target: &str| symlink(target, workplace.path(name)).unwrap();
    link("link.wasm", "out/real.wasm");
    link("second.wasm", "link.wasm");
    workplace.haar("sign second.wasm --key one.key").ok();
    assert_eq!(signers(&workplace.path("out/real.wasm")), [1]);
    for name in ["link.wasm", "second.wasm"] {
        assert!(workplace.path(name).is_symlink(), "{name}");
    }

    // A dangling link: its target is created.
    link("new.wasm", "out/new.wasm");
    workplace
        .haar("sign m.wasm --key one.key --out new.wasm")
        .ok();
    assert!(workplace.path("new.wasm").is_symlink());
    assert_eq!(signers(&workplace.path("out/new.wasm")), [1]);
    // A key is never written through an existing link.
    link("acme.key", "out/acme.key");
    assert_eq!(workplace.haar("key new acme").code, 3);
    workplace.haar("key new acme --force").ok();
    assert!(workplace.path("acme.key").is_symlink());
    assert!(workplace.path("out/acme.key").is_file());
    link("loop.wasm", "loop.wasm");
    let looped = workplace.haar("sign m.wasm --key one.key --out loop.wasm");
    assert_eq!(looped.code, 1);
}

#[test]
fn what_is_not_a_regular_file_is_written_into() {
    let workplace = workplace();
    let fifo = workplace.path("fifo");
    let made = output_within(Command::new("mkfifo").arg(&fifo), DEADLINE);
    assert!(made.status.success(), "{made:?}");
    let reader = {
        let fifo = fifo.clone();
        std::thread::spawn(move || {
            let mut read = Vec::new();
            std::fs::File::open(fifo)
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            read
        })
    };
    workplace.haar("sign m.wasm --key one.key --out fifo").ok();
    let signed = join_within("what is signed arrives", reader);
    assert_eq!(Signatures::of(&signed).unwrap().count(), 1);
    assert!(!fifo.metadata().unwrap().is_file());

    let mut command = workplace.command();
    command.args(["key", "export", "one.pub", "--out", "/dev/stdout"]);
    let written = output_within(&mut command, COMMAND);
    let key = SecretKey::from_seed([1; 32]).public();
    assert_eq!(written.stdout, key.to_wasmsign2());
    symlink("/dev/full", workplace.path("full")).unwrap();
    let full = workplace.haar("sign m.wasm --key one.key --out full");
    assert_eq!(full.code, 1);
    assert!(full.stderr.contains("no space left"), "{}", full.stderr);
}

//! Keys, signatures and what is checked about modules without a site.

use haar_protocol::keys::{PublicKey, SecretKey};

use crate::haar::Workplace;
use crate::modules;

fn workplace_with_key() -> Workplace {
    let workplace = Workplace::new();
    workplace.haar("key new acme").ok();
    workplace
}

#[test]
fn a_new_key_is_secret_and_readable_by_other_tools() {
    use std::os::unix::fs::PermissionsExt as _;
    let workplace = Workplace::new();
    let made = workplace.haar("key new acme").ok();
    let secret = SecretKey::from_pem(&workplace.read("acme.key")).unwrap();
    let public = PublicKey::from_pem(&workplace.read("acme.pub")).unwrap();
    assert_eq!(secret.public(), public);
    let mode = std::fs::metadata(workplace.path("acme.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    insta::assert_snapshot!(made.all().replace(&public.fingerprint(), "FINGERPRINT"));
}

#[test]
fn a_key_is_never_overwritten_unless_forced() {
    let workplace = workplace_with_key();
    let before = workplace.read("acme.key");
    let refused = workplace.haar("key new acme");
    assert_eq!(workplace.read("acme.key"), before);
    insta::assert_snapshot!(refused.all());
    // A lone public key is somebody's, too.
    std::fs::remove_file(workplace.path("acme.key")).unwrap();
    assert_eq!(workplace.haar("key new acme").code, 3);
    workplace.haar("key new acme --force").ok();
    assert_ne!(workplace.read("acme.key"), before);
}

#[test]
fn a_signed_module_verifies_and_a_changed_one_does_not() {
    let workplace = workplace_with_key();
    let file = workplace.write(
        "filter.wasm",
        modules::named("filter", "1.2.3", &["haar:local/messaging@0.1.0"]),
    );
    workplace.haar("sign filter.wasm --key acme.key").ok();
    let verified = workplace
        .haar("verify filter.wasm --key acme.pub --output json")
        .ok()
        .json();
    assert_eq!(verified["name"], "filter");
    assert_eq!(verified["version"], "1.2.3");
    assert_eq!(verified["imports"][0], "haar:local/messaging@0.1.0");
    assert_eq!(verified["signers"][0]["file"], "acme.pub");

    let mut content = std::fs::read(&file).unwrap();
    *content.last_mut().unwrap() ^= 1;
    std::fs::write(&file, content).unwrap();
    insta::assert_snapshot!(workplace.haar("verify filter.wasm --key acme.pub").all());
}

#[test]
fn what_a_module_is_is_told_to_people() {
    let workplace = Workplace::new();
    let key = SecretKey::from_seed([7; 32]);
    workplace.write("acme.key", key.to_pem());
    workplace.write("acme.pub", key.public().to_pem());
    workplace.write(
        "filter.wasm",
        modules::named(
            "filter",
            "1.2.3",
            &["haar:local/messaging@0.1.0", "wasi:http/types@0.2.10"],
        ),
    );
    insta::assert_snapshot!(
        workplace
            .haar("sign filter.wasm --key acme.key --out signed.wasm")
            .all()
    );
    insta::assert_snapshot!(workplace.haar("verify signed.wasm --key acme.pub").all());
    assert_eq!(
        workplace.haar("verify filter.wasm --key acme.pub").code,
        3,
        "the original is as it was"
    );
}

#[test]
fn several_keys_may_be_trusted_and_a_stranger_is_not() {
    let workplace = workplace_with_key();
    workplace.haar("key new other").ok();
    workplace.write("filter.wasm", modules::named("filter", "1.0.0", &[]));
    workplace.haar("sign filter.wasm --key acme.key").ok();
    workplace
        .haar("verify filter.wasm --key other.pub acme.pub")
        .ok();
    workplace
        .haar("verify filter.wasm --key other.pub --key acme.pub")
        .ok();
    let refused = workplace.haar("verify filter.wasm --key other.pub --output json");
    assert_eq!(refused.code, 3);
    let error: serde_json::Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(error["code"], "untrusted_module");
}

#[test]
fn what_is_no_module_is_told_apart() {
    let workplace = workplace_with_key();
    workplace.write("text.wasm", "hello");
    workplace.write("core.wasm", b"\0asm\x01\0\0\0");
    workplace.write("unsigned.wasm", modules::named("filter", "1.0.0", &[]));
    workplace.write("cut.wasm", {
        let mut content = modules::named("filter", "1.0.0", &["haar:local/messaging@0.1.0"]);
        content.truncate(content.len() - 3);
        content
    });
    let mut text = String::new();
    for file in [
        "text.wasm",
        "core.wasm",
        "unsigned.wasm",
        "cut.wasm",
        "missing.wasm",
        ".",
    ] {
        text.push_str(&format!(
            "$ haar verify {file}\n{}\n",
            workplace
                .haar(&format!("verify {file} --key acme.pub"))
                .all()
        ));
    }
    for line in [
        "sign unsigned.wasm --key acme.pub",
        "verify unsigned.wasm --key acme.key",
        "verify unsigned.wasm --key text.wasm",
        "sign core.wasm --key acme.key",
    ] {
        text.push_str(&format!("$ haar {line}\n{}\n", workplace.haar(line).all()));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_is_read() {
    let workplace = workplace_with_key();
    let file = std::fs::File::create(workplace.path("huge.wasm")).unwrap();
    file.set_len(1 << 40).unwrap(); // a terabyte of nothing: reading it would not end
    insta::assert_snapshot!(workplace.haar("push huge.wasm").all());
    assert_eq!(workplace.haar("verify huge.wasm --key acme.pub").code, 3);
    assert_eq!(workplace.haar("apply -f huge.wasm").code, 3);
}

#[test]
fn pushing_checks_signature_and_name_before_it_asks_the_site() {
    let workplace = workplace_with_key();
    workplace.write("unsigned.wasm", modules::named("filter", "1.0.0", &[]));
    workplace.write("unnamed.wasm", modules::component(&[]).finish());
    assert_eq!(workplace.haar("sign unnamed.wasm --key acme.key").code, 0);
    insta::assert_snapshot!(workplace.haar("push unsigned.wasm").all());
    insta::assert_snapshot!(workplace.haar("push unnamed.wasm").all());
}

#[test]
fn a_key_exported_for_wasmsign2_is_still_the_key() {
    let workplace = workplace_with_key();
    workplace.haar("key export acme.key --out raw.key").ok();
    let exported = workplace
        .haar("key export acme.pub --out raw.pub --output json")
        .ok()
        .json();
    let public = PublicKey::from_pem(&workplace.read("acme.pub")).unwrap();
    assert_eq!(exported["file"], "raw.pub");
    assert_eq!(exported["key"], public.to_string());
    assert_eq!(exported["secret"], false);
    let raw = std::fs::read(workplace.path("raw.pub")).unwrap();
    assert_eq!(PublicKey::from_wasmsign2(&raw), Ok(public));
    let raw = std::fs::read(workplace.path("raw.key")).unwrap();
    assert_eq!(SecretKey::from_wasmsign2(&raw).unwrap().public(), public);
    assert_eq!(workplace.haar("key export acme.pub --out raw.pub").code, 3);
}

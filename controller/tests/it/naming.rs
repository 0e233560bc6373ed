//! What modules say of themselves: versions that commands can name, interfaces that agents know.

use crate::pushing::assert_store_is_empty;
use crate::support::modules::{content_path, recipe};
use crate::support::site::{TestSite, publisher};

#[test]
fn a_version_that_commands_could_not_name_is_refused_with_the_one_that_is_meant() {
    let site = TestSite::with_publisher();
    for (version, meant) in [
        ("1.0", "`1.0.0`"),
        ("v1.0.0", "`1.0.0`"),
        ("01.1.", "1.4.2"),
        ("../..", "1.4.2"),
        ("1.0.0 beta", "1.4.2"),
    ] {
        let file = recipe("sampler", version).signed(&publisher());
        let reply = site.client.put(&content_path(&file), &file);
        let text = reply.refused(422, "bad_version");
        assert!(text.contains(meant), "{text}");
        assert_store_is_empty(&site);
    }
    site.push(&recipe("sampler", "2.0.0-rc.1+build.7"));
}

#[test]
fn a_component_of_a_newer_wasi_is_refused_with_the_reason() {
    let site = TestSite::with_publisher();
    let mut newer = recipe("sampler", "1.0.0");
    newer.imports.push("wasi:cli/stdin@0.3.0".into());
    let file = newer.signed(&publisher());
    let text = site
        .client
        .put(&content_path(&file), &file)
        .refused(422, "newer_wasi");
    assert!(
        text.contains("wasi:cli/stdin@0.3.0") && text.contains("wasm32-wasip2"),
        "{text}"
    );
    assert_store_is_empty(&site);
}

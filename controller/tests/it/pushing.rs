//! Modules arrive, are checked and kept, or refused and forgotten.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use haar_protocol::ids::Digest;
use haar_protocol::keys::SecretKey;
use haar_protocol::rest::{Module, UploadState};

use crate::support::device::Device;
use crate::support::modules::{content_path, recipe};
use crate::support::site::{TestSite, publisher};
use crate::support::wait::{connect, until};

/// Nothing of a refused file may be left.
pub(crate) fn assert_store_is_empty(site: &TestSite) {
    for folder in ["modules", "uploads"] {
        let entries: Vec<_> = std::fs::read_dir(site.directory.path().join(folder))
            .unwrap()
            .collect();
        assert!(entries.is_empty(), "{folder}: {entries:?}");
    }
}

#[test]
fn a_good_module_is_kept_and_pushing_it_again_changes_nothing() {
    let site = TestSite::with_publisher();
    let file = recipe("sampler", "1.2.0").signed(&publisher());
    let path = content_path(&file);
    let reply = site.client.put(&path, &file);
    assert_eq!(reply.status, 201);
    let module: Module = reply.ok();
    assert_eq!(
        (module.name.as_str(), module.version.as_str(), module.bytes),
        ("sampler", "1.2.0", file.len() as u64)
    );
    assert_eq!(module.publishers[0].as_str(), "acme");
    assert_eq!(module.imports, ["haar:local/messaging@0.1.0"]);
    assert_eq!(module.exports, ["haar:local/handler@0.1.0"]);
    let again = site.client.put(&path, &file);
    assert_eq!(again.status, 200);
    assert_eq!(again.ok::<Module>(), module);
    assert_eq!(
        site.client
            .get(&format!("/modules/{}", module.digest))
            .ok::<Module>(),
        module
    );
}

#[test]
fn a_file_that_is_not_what_it_should_be_is_refused_and_forgotten() {
    let site = TestSite::with_publisher();
    let good = recipe("sampler", "1.0.0").signed(&publisher());
    let stranger = SecretKey::from_seed([5; 32]);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut core = good.clone();
    core[4..8].copy_from_slice(&[1, 0, 0, 0]);
    let mut nameless = recipe("", "1.0.0");
    nameless.name = None;
    let mut versionless = recipe("sampler", "");
    versionless.version = None;
    let cases: [(&str, Vec<u8>); 8] = [
        ("unsigned", recipe("sampler", "1.0.0").build()),
        ("untrusted", recipe("sampler", "1.0.0").signed(&stranger)),
        ("untrusted", flipped),
        ("untrusted", good[..good.len() - 3].to_vec()),
        ("core_module", core),
        ("not_wasm", b"#!/bin/sh".to_vec()),
        ("no_name", nameless.signed(&publisher())),
        ("no_version", versionless.signed(&publisher())),
    ];
    for (code, file) in cases {
        let text = site
            .client
            .put(&content_path(&file), &file)
            .refused(422, code);
        assert!(!text.is_empty());
        assert_store_is_empty(&site);
    }
    let digest = Digest::of(b"something else");
    site.client
        .put(&format!("/modules/{digest}/content"), &good)
        .refused(422, "wrong_digest");
    site.client
        .put("/modules/sha256:12/content", &good)
        .refused(400, "bad_name");
    site.client
        .put(&content_path(b""), b"")
        .refused(422, "not_wasm");
    assert_store_is_empty(&site);
}

#[test]
fn a_signed_file_that_is_no_valid_component_is_refused() {
    let site = TestSite::with_publisher();
    // A component with an export of an instance that is not there.
    let mut broken = recipe("sampler", "1.0.0").build();
    broken.extend_from_slice(&[11, 7, 1, 0, 1, b'x', 5, 99, 0]);
    let file = haar_protocol::module::sign(&broken, &publisher()).unwrap();
    site.client
        .put(&content_path(&file), &file)
        .refused(422, "invalid_component");
    assert_store_is_empty(&site);
}

#[test]
fn without_a_publisher_the_refusal_says_to_trust_one() {
    let site = TestSite::start();
    let file = recipe("sampler", "1.0.0").signed(&publisher());
    let text = site
        .client
        .put(&content_path(&file), &file)
        .refused(422, "untrusted");
    assert!(text.contains("haar publisher trust"), "{text}");
}

#[test]
fn a_version_is_one_file_for_ever() {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let mut changed = recipe("sampler", "1.0.0");
    changed.padding = 10;
    let file = changed.signed(&publisher());
    let text = site
        .client
        .put(&content_path(&file), &file)
        .refused(409, "version_exists");
    assert!(text.contains("raise the version"), "{text}");
    assert!(
        !site
            .directory
            .path()
            .join("modules")
            .join(format!("{}.wasm", Digest::of(&file).to_hex()))
            .exists()
    );
}

/// A TLS connection that says exactly what the test wants.
fn raw(
    site: &TestSite,
    text: &[u8],
) -> rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream> {
    let address = site.context.url.strip_prefix("https://").unwrap();
    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::pem::PemObject as _;
    roots
        .add(
            rustls_pki_types::CertificateDer::from_pem_slice(site.context.ca_pem.as_bytes())
                .unwrap(),
        )
        .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let connection =
        rustls::ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, connect(address));
    stream.write_all(text).unwrap();
    stream
}

fn headers(site: &TestSite, file: &[u8], length: u64, more: &str) -> Vec<u8> {
    format!(
        "PUT /api/v1{} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {length}\r\n{more}\r\n",
        content_path(file),
        site.context.token
    )
    .into_bytes()
}

fn read_answer(stream: &mut impl std::io::Read) -> String {
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.contains("\"hint\"") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    answer
}

#[test]
fn a_file_that_is_too_large_is_refused_before_a_byte_of_it_is_sent() {
    let site = TestSite::with_publisher();
    for more in ["", "expect: 100-continue\r\n"] {
        let mut stream = raw(&site, &headers(&site, b"any", 1 << 30, more));
        let answer = read_answer(&mut stream);
        assert!(
            answer.starts_with("HTTP/1.1 413") && answer.contains("too_large"),
            "{answer}"
        );
    }
    let range = [("content-range", format!("bytes 0-9/{}", 1u64 << 30))];
    site.client
        .send("PUT", &content_path(b"any"), &range, &[0; 10])
        .refused(413, "too_large");
    assert_store_is_empty(&site);
}

#[test]
fn a_file_without_announced_size_is_refused_when_it_gets_too_large() {
    let site = TestSite::with_publisher();
    let mut stream = raw(
        &site,
        format!(
            "PUT /api/v1{} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
            content_path(b"any"),
            site.context.token
        )
        .as_bytes(),
    );
    let chunk = vec![0u8; 1 << 20];
    for _ in 0..65 {
        stream
            .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
            .unwrap();
        stream.write_all(&chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let answer = read_answer(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    until("the upload is gone", || {
        site.directory
            .path()
            .join("uploads")
            .read_dir()
            .unwrap()
            .next()
            .is_none()
            .then_some(())
    });
}

#[test]
fn a_cut_upload_goes_on_where_it_was_cut() {
    let site = TestSite::with_publisher();
    let mut large = recipe("large", "1.0.0");
    large.padding = 300_000;
    let file = large.signed(&publisher());
    let digest = Digest::of(&file);
    let state = || {
        site.client
            .get(&format!("/modules/{digest}/upload"))
            .ok::<UploadState>()
    };
    assert_eq!(
        state(),
        UploadState {
            offset: 0,
            complete: false
        }
    );
    let mut stream = raw(&site, &headers(&site, &file, file.len() as u64, ""));
    stream.write_all(&file[..100_000]).unwrap();
    stream.flush().unwrap();
    stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = stream.read(&mut [0; 1]);
    drop(stream);
    let offset = until("what arrived is on the disk", || {
        Some(state().offset).filter(|offset| *offset == 100_000)
    });

    let part = |start: usize, end: usize| {
        let range = [(
            "content-range",
            format!("bytes {start}-{}/{}", end - 1, file.len()),
        )];
        site.client
            .send("PUT", &content_path(&file), &range, &file[start..end])
    };
    until("the cut request has ended", || {
        (part(7, 9).json()["code"] == "wrong_offset").then_some(())
    });
    let start = usize::try_from(offset).unwrap();
    let reply = part(start, start + 100_000);
    assert_eq!(reply.status, 202);
    assert_eq!(
        reply.ok::<UploadState>(),
        UploadState {
            offset: offset + 100_000,
            complete: false
        }
    );
    assert_eq!(part(start + 100_000, file.len()).status, 201);
    assert_eq!(
        state(),
        UploadState {
            offset: file.len() as u64,
            complete: true
        }
    );
    assert!(
        site.directory
            .path()
            .join("uploads")
            .read_dir()
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_file_is_fetched_in_whole_or_in_part() {
    let site = TestSite::with_publisher();
    let file = site.push(&recipe("sampler", "1.0.0"));
    let path = content_path(&file);
    let whole = site.client.get(&path);
    assert_eq!((whole.status, &whole.bytes), (200, &file));
    assert_eq!(
        whole.headers["etag"],
        format!("\"{}\"", Digest::of(&file)).as_str()
    );
    let range = |text: &str| {
        site.client
            .send("GET", &path, &[("range", text.to_owned())], b"")
    };
    let part = range("bytes=4-9");
    assert_eq!((part.status, &part.bytes[..]), (206, &file[4..10]));
    assert_eq!(
        part.headers["content-range"],
        format!("bytes 4-9/{}", file.len()).as_str()
    );
    assert_eq!(range("bytes=-5").bytes, file[file.len() - 5..]);
    let beyond = range("bytes=999999-");
    assert_eq!(
        beyond.headers["content-range"],
        format!("bytes */{}", file.len()).as_str()
    );
    beyond.refused(416, "range_not_satisfiable");
    site.client
        .get(&content_path(b"nothing"))
        .refused(404, "unknown_module");
}

#[test]
fn a_node_fetches_the_modules_of_its_assignment_and_nothing_else() {
    let site = TestSite::with_publisher();
    let mine = site.push(&recipe("mine", "1.0.0"));
    let other = site.push(&recipe("other", "1.0.0"));
    let device = Device::join(&site, 1, "gw", &[]);
    site.apply(
        "app",
        "api_version: haar/v1\nkind: Application\nname: app\nmicroservices:\n- {name: one, module: mine@1.0.0, place: {node: gw}}\n",
    );
    let client = device.client(&site);
    assert_eq!(client.get(&content_path(&mine)).bytes, mine);
    client
        .get(&content_path(&other))
        .refused(403, "not_assigned");
    for path in ["/nodes", "/modules", "/applications", "/events"] {
        client.get(path).refused(403, "not_for_nodes");
    }
    client
        .put(&content_path(&mine), &mine)
        .refused(403, "not_for_nodes");
    let stranger = Device::new(&site, 9);
    stranger
        .client(&site)
        .get(&content_path(&mine))
        .refused(401, "unknown_node");
    let old = site
        .client
        .with_authorization(Some(format!("Haar-Proof {}", device.proof(1_000))));
    old.get(&content_path(&mine)).refused(403, "clock_skew");
    site.client.delete("/nodes/gw").done();
    client
        .get(&content_path(&mine))
        .refused(401, "unknown_node");
}

#[test]
fn a_component_of_which_nothing_would_be_called_is_refused_with_what_it_is() {
    let site = TestSite::with_publisher();
    for (export, expected) in [
        ("wasi:cli/run@0.2.6", "is a command"),
        ("wasi:http/incoming-handler@0.2.6", "is an HTTP handler"),
        ("haar:local/handler@0.2.0", "exports only"),
    ] {
        let mut recipe = recipe("main", "1.0.0");
        recipe.exports = vec![export.into()];
        let file = recipe.signed(&publisher());
        let reply = site.client.put(&content_path(&file), &file);
        let refusal = reply.refused(422, "never_called");
        assert!(
            refusal.contains(expected) && refusal.contains("haar:local/handler"),
            "{refusal}"
        );
    }
    assert_store_is_empty(&site);
}

//! The API as a whole: who may call what, and how mistakes are answered.

use crate::support::site::TestSite;

#[test]
fn every_route_of_the_document_answers_and_asks_who_calls() {
    let site = TestSite::start();
    let stranger = site.client.with_authorization(None);
    let wrong = site.client.with_authorization(Some("Bearer 0000".into()));
    let document = stranger.get("/openapi.json").json();
    let digest = haar_protocol::ids::Digest::of(b"").to_string();
    let mut routes = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path
            .strip_prefix("/api/v1")
            .unwrap()
            .replace("{name}", "nobody")
            .replace(
                "{key}",
                &crate::support::site::publisher().public().to_string(),
            )
            .replace("{id}", "1")
            .replace("{route}", "0123456789abcdef")
            .replace("{digest}", &digest);
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase();
            let is_open = operation["security"].as_array().unwrap().is_empty();
            for client in [&stranger, &wrong] {
                let reply = client.send(&method, &path, &[], b"{}");
                if is_open {
                    assert!(
                        ![401, 403, 404, 405].contains(&reply.status),
                        "{method} {path}: {}",
                        reply.status
                    );
                } else {
                    assert_eq!(reply.status, 401, "{method} {path}");
                    assert!(reply.json()["code"].is_string());
                }
            }
            let known = site.client.send(&method, &path, &[], b"{}");
            assert!(
                ![401, 405, 500].contains(&known.status),
                "{method} {path}: {} {}",
                known.status,
                known.json()
            );
            routes += 1;
        }
        let unknown = site.client.send("PATCH", &path, &[], b"");
        assert_eq!(unknown.status, 405, "{path}");
    }
    assert_eq!(routes, 44);
}

#[test]
fn mistakes_are_answered_in_one_form() {
    let site = TestSite::start();
    site.client.get("/nothing").refused(404, "unknown_path");
    site.client
        .send("POST", "/nodes", &[], b"")
        .refused(405, "wrong_method");
    site.client
        .send("POST", "/tokens", &[], b"{")
        .refused(400, "bad_json");
    site.client
        .send("POST", "/tokens", &[], b"")
        .refused(400, "bad_json");
    site.client.get("/nodes/UPPER").refused(400, "bad_name");
    site.client.get("/modules/latest").refused(400, "bad_name");
    site.client
        .send("POST", "/tokens", &[], &vec![b' '; (1 << 20) + 1])
        .refused(413, "too_large");
    site.client
        .get("/nodes/nobody")
        .refused(404, "unknown_node");
    let mut other = site.client.clone();
    other.base = other.base.replace("/api/v1", "");
    other.get("/").refused(404, "unknown_path");
}

#[test]
fn bodies_and_their_parts_are_objects_and_not_lists_of_fields() {
    let site = TestSite::start();
    let post = |path: &str, body: &str| site.client.send("POST", path, &[], body.as_bytes());
    for (path, body) in [
        ("/tokens", "[]"),
        ("/tokens", "[\"gw-1\"]"),
        ("/enrolments", "[]"),
        ("/nodes/gw/dead-letters/drop", "[[1]]"),
        ("/nodes/gw/dead-letters/drop", "[\"app\", \"one\"]"),
    ] {
        let text = post(path, body).refused(400, "bad_json");
        assert!(
            text.contains("object") || text.contains("not what is expected"),
            "{text}"
        );
    }
    site.client
        .send("PUT", "/publishers/acme", &[], b"[\"ed25519:00\"]")
        .refused(400, "bad_json");
    let tokens = site.client.get("/events").json();
    assert_eq!(tokens["items"].as_array().unwrap().len(), 0);
    assert_eq!(post("/tokens", "{}").status, 201);
}

#[test]
fn parameters_say_what_may_stand_there() {
    let site = TestSite::start();
    let mut text = String::new();
    for path in [
        "/logs?tail=many",
        "/logs?tail=",
        "/logs?tail=-1",
        "/logs?tail=99999999999",
        "/logs?since_ms=9007199254740992",
        "/events?since_ms=yesterday",
        "/events?follow=yes",
        "/events?follow=",
        "/logs?application=",
        "/logs?node=UPPER",
        "/nodes/gw/dead-letters?after=9007199254740992",
        "/nodes/gw/dead-letters/x",
        "/nodes/gw/dead-letters/18446744073709551616",
        "/nodes/gw/dead-letters/9007199254740992",
        "/nodes/Gw/dead-letters/1",
        "/modules/sha256:12",
    ] {
        let reply = site.client.get(path);
        assert_eq!(reply.status, 400, "{path}");
        text += &format!("{path}: {}\n", reply.json()["message"].as_str().unwrap());
    }
    insta::assert_snapshot!(text);
}

#[test]
fn names_that_nothing_has_are_said_with_what_may_be_meant() {
    let site = TestSite::with_publisher();
    site.push(&crate::support::modules::recipe("sampler", "1.0.0"));
    let _device = crate::support::device::Device::join(&site, 1, "gateway-1", &[]);
    site.apply("plant", "api_version: haar/v1\nkind: Application\nname: plant\nmicroservices:\n- {name: filter, module: sampler@1.0.0, place: {node: gateway-1}}\n");
    let mut text = String::new();
    for path in [
        "/logs?application=plan",
        "/logs?application=plan&follow=true",
        "/logs?application=plant&microservice=filer",
        "/logs?microservice=fitler",
        "/logs?node=gateway-2",
        "/logs?application=something",
        "/microservices?application=plnt",
        "/routes?application=plants",
        "/nodes/gateway",
        "/applications/plants",
        "/relays/plant",
    ] {
        let body = site.client.get(path);
        assert_eq!(body.status, 404, "{path}");
        let body = body.json();
        let word = |key: &str| body[key].as_str().unwrap().to_owned();
        text += &format!("{path}: {} ({})\n", word("message"), word("hint"));
    }
    insta::assert_snapshot!(text);
    for path in [
        "/logs?application=plant",
        "/logs?node=gateway-1",
        "/logs",
        "/routes?application=plant",
    ] {
        assert_eq!(site.client.get(path).status, 200, "{path}");
    }
}

#[test]
fn anybody_may_know_the_site_and_its_authority() {
    let site = TestSite::start();
    let stranger = site.client.with_authorization(None);
    let info = stranger.get("/site").json();
    assert_eq!(info["id"], site.id().as_str());
    let ca = stranger.get("/site/ca");
    assert_eq!(String::from_utf8(ca.bytes).unwrap(), site.context.ca_pem);
    assert_eq!(stranger.get("/schemas/application.json").status, 200);
}

#[test]
fn plaintext_and_silence_do_not_keep_others_out() {
    use std::io::{Read as _, Write as _};
    let site = TestSite::start();
    let address = site.context.url.strip_prefix("https://").unwrap();
    let silent: Vec<_> = (0..20)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    let mut plain = crate::support::wait::connect(address);
    plain
        .write_all(b"GET /api/v1/site HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    // The end may come as a reset, but it comes.
    let ended = plain.read_to_end(&mut answer).map_err(|error| error.kind());
    assert_ne!(ended, Err(std::io::ErrorKind::WouldBlock));
    assert!(!answer.starts_with(b"HTTP"));
    assert_eq!(site.client.get("/site").status, 200);
    drop(silent);
}

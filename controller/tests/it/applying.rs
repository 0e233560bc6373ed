//! Applications are applied: refused for a reason, or signed and on their way.

use haar_protocol::ids::{PortName, RouteId};
use haar_protocol::rest::{ApplicationDetail, ApplyResult, Route};

use crate::support::device::Device;
use crate::support::modules::recipe;
use crate::support::site::TestSite;
use crate::support::wait::until;

const HEAD: &str = "api_version: haar/v1\nkind: Application\nname: app\n";

fn one(rest: &str) -> String {
    format!("{HEAD}microservices:\n- {{name: one, {rest}}}\n")
}

/// A site with a module `sampler@1.0.0` and two nodes, `gw-1` and `gw-2`, of 64 MiB and 4 microservices.
fn site() -> (TestSite, Device, Device) {
    let site = TestSite::with_publisher();
    site.push(&recipe("sampler", "1.0.0"));
    let first = Device::join(&site, 1, "gw-1", &[("role", "edge")]);
    let second = Device::join(&site, 2, "gw-2", &[("role", "edge")]);
    (site, first, second)
}

#[test]
fn what_can_not_run_is_refused_with_its_reason() {
    let (site, _first, _second) = site();
    let mut network = recipe("network", "1.0.0");
    network.imports.push("wasi:http/types@0.2.10".into());
    network
        .imports
        .push("wasi:keyvalue/store@0.2.0-draft".into());
    site.push(&network);
    let mut keeper = recipe("keeper", "1.0.0");
    keeper
        .imports
        .push("wasi:keyvalue/store@0.2.0-draft".into());
    site.push(&keeper);
    let mut large = recipe("large", "1.0.0");
    large.pages = 257; // a page more than the limit has when nothing is said
    site.push(&large);
    let mut mute = recipe("mute", "1.0.0");
    mute.exports.clear();
    site.push(&mute);
    let cases = [
        (
            "module: sampler@2.0.0, place: {node: gw-1}",
            "unknown_module",
            "sampler@1.0.0",
        ),
        (
            "module: samplr@1.0.0, place: {node: gw-1}",
            "unknown_module",
            "sampler@1.0.0",
        ),
        (
            "module: network@1.0.0, place: {node: gw-1}",
            "missing_grants",
            "wasi:http/types@0.2.10",
        ),
        (
            "module: network@1.0.0, place: {node: gw-1}",
            "missing_grants",
            "write `grants: { key_value: true }` into the manifest; for the others: HTTP is not offered",
        ),
        (
            "module: large@1.0.0, place: {node: gw-1}",
            "too_little_memory",
            "starts with 16448KiB of memory, and its limit is 16384KiB",
        ),
        (
            "module: keeper@1.0.0, place: {node: gw-1}",
            "missing_grants",
            "wasi:keyvalue/store@0.2.0-draft",
        ),
        (
            "module: large@1.0.0, place: {node: gw-1}",
            "too_little_memory",
            "starts with 16448KiB of memory, and its limit is 16384KiB",
        ),
        (
            "module: keeper@1.0.0, place: {node: gw-1}",
            "missing_grants",
            "grants: { key_value: true }",
        ),
        (
            "module: mute@1.0.0, place: {node: gw-1}, inlets: {in: text/plain}",
            "no_handler",
            "haar:local/handler",
        ),
        (
            "module: sampler@1.0.0, place: {node: gw-3}",
            "unknown_node",
            "did you mean `gw-",
        ),
        (
            "module: sampler@1.0.0, place: {labels: {role: core}}",
            "no_node",
            "role=core",
        ),
        (
            "module: sampler@1.0.0, place: {node: gw-1}, limits: {memory: 65MiB}",
            "over_budget",
            "`gw-1`: memory: 65MiB wanted, 64MiB of 64MiB free: over by 1MiB",
        ),
    ];
    for (text, code, expected) in cases {
        let refusal = site.try_apply("app", &one(text)).refused(422, code);
        assert!(refusal.contains(expected), "{refusal}");
    }
    site.try_apply("app", "name: [")
        .refused(400, "bad_manifest");
    site.try_apply("app", "").refused(400, "bad_manifest");
    let granted = one("module: keeper@1.0.0, place: {node: gw-1}, grants: {key_value: true}");
    let dry = site.try_apply("app?dry_run=true", &granted);
    dry.done();
    let fine = one("module: sampler@1.0.0, place: {node: gw-1}");
    site.try_apply("other", &fine).refused(400, "name_mismatch");
    site.client
        .get("/applications/app")
        .refused(404, "unknown_application");
    assert_eq!(site.client.get("/nodes/gw-1").json()["assignment"], 1);
}

#[test]
fn every_problem_is_listed_at_once() {
    let (site, _first, _second) = site();
    let yaml = format!(
        "{HEAD}microservices:\n- {{name: one, module: a@1, place: {{node: gw-1}}}}\n- {{name: two, module: b@1, place: {{node: gw-1}}}}\n"
    );
    let text = site.try_apply("app", &yaml).refused(422, "unknown_module");
    assert!(text.contains("`a@1`") && text.contains("`b@1`"), "{text}");
}

#[test]
fn a_module_of_a_publisher_that_is_no_longer_trusted_is_not_applied() {
    let (site, _first, _second) = site();
    site.client.delete("/publishers/acme").done();
    site.client
        .delete("/publishers/acme")
        .refused(404, "unknown_publisher");
    let text = site
        .try_apply("app", &one("module: sampler@1.0.0, place: {node: gw-1}"))
        .refused(422, "untrusted_module");
    assert!(text.contains("sampler@1.0.0"), "{text}");
}

#[test]
fn a_budget_counts_all_applications_together() {
    let (site, _first, _second) = site();
    site.apply(
        "app",
        &one("module: sampler@1.0.0, place: {node: gw-1}, limits: {memory: 60MiB}"),
    );
    let second = "api_version: haar/v1\nkind: Application\nname: b\nmicroservices:\n- {name: two, module: sampler@1.0.0, place: {node: gw-1}, limits: {memory: 5MiB}}\n";
    let text = site.try_apply("b", second).refused(422, "over_budget");
    assert!(
        text.contains("over by 1MiB") && text.contains("gw-1"),
        "{text}"
    );
    let many: String = (0..5)
        .map(|index| format!("- {{name: m{index}, module: sampler@1.0.0, place: {{node: gw-2}}, limits: {{memory: 1MiB}}}}\n"))
        .collect();
    let text = site
        .try_apply(
            "b",
            &format!("api_version: haar/v1\nkind: Application\nname: b\nmicroservices:\n{many}"),
        )
        .refused(422, "over_budget");
    assert!(
        text.contains("microservices: 1 wanted, 0 of 4 free: over by 1"),
        "{text}"
    );
}

#[test]
fn a_dry_run_says_everything_and_does_nothing() {
    let (site, _first, _second) = site();
    let yaml =
        one("module: sampler@1.0.0, place: {labels: {role: edge}}, outlets: {out: text/plain}");
    let rehearsed: ApplyResult = site
        .client
        .put("/applications/app?dry_run=true", yaml.as_bytes())
        .ok();
    assert!(rehearsed.dry_run && rehearsed.changed && rehearsed.assignments.is_empty());
    assert_eq!((rehearsed.placements.len(), rehearsed.revision), (2, 1));
    site.client
        .get("/applications/app")
        .refused(404, "unknown_application");
    let applied = site.apply("app", &yaml);
    assert_eq!(applied.placements, rehearsed.placements);
    assert_eq!(applied.warnings, rehearsed.warnings);
    site.client
        .put("/applications/app?dry_run=maybe", yaml.as_bytes())
        .refused(400, "bad_query");
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let (site, _first, _second) = site();
    let yaml = one("module: sampler@1.0.0, place: {node: gw-1}");
    let first = site.apply("app", &yaml);
    assert!(first.changed && !first.dry_run);
    assert_eq!((first.revision, first.assignments.len()), (1, 1));
    let again = site.apply("app", &yaml);
    assert!(!again.changed && again.assignments.is_empty());
    assert_eq!(again.revision, 1);
    let changed = site.apply(
        "app",
        &one("module: sampler@1.0.0, place: {node: gw-1}, configuration: {a: b}"),
    );
    assert!(changed.changed);
    assert_eq!(changed.revision, 2);
}

#[test]
fn an_assignment_reaches_its_node_retained_and_signed() {
    let (site, first, second) = site();
    let yaml = format!(
        "{HEAD}microservices:\n\
         - {{name: source, module: sampler@1.0.0, place: {{node: gw-1}}, outlets: {{out: text/plain}}}}\n\
         - {{name: sink, module: sampler@1.0.0, place: {{labels: {{role: edge}}}}, inlets: {{in: text/plain}}}}\n\
         routes:\n- {{from: source.out, to: sink.in, delivery: live}}\n"
    );
    let mut link = first.connect(&site);
    let result = site.apply("app", &yaml);
    let number = result
        .assignments
        .iter()
        .find(|(name, _)| name.as_str() == "gw-1")
        .map(|(_, number)| *number)
        .unwrap();
    let (assignment, _) = link.assignment(|assignment| assignment.number == number);
    assert_eq!(
        (assignment.node.clone(), assignment.site.clone()),
        (first.id.clone(), site.id())
    );
    assert_eq!(assignment.publishers[0].name.as_str(), "acme");
    assert_eq!(
        assignment
            .peers
            .iter()
            .map(|peer| &peer.id)
            .collect::<Vec<_>>(),
        [&second.id]
    );
    assert_eq!(assignment.microservices.len(), 2);
    assert_eq!(assignment.routes.len(), 2);
    let ends = ["source.out", "sink.in"].map(|text| text.parse::<PortName>().unwrap());
    let id = RouteId::of(
        &"app".parse().unwrap(),
        &ends[0],
        &ends[1],
        &"text/plain".parse().unwrap(),
    );
    assert!(assignment.routes.iter().all(|route| route.id == id));

    let late = until("a node that was away gets it from the relay", || {
        let (assignment, retained) = second.connect(&site).assignment(|_| true);
        (retained && assignment.microservices.len() == 1).then_some(assignment)
    });
    assert_eq!((late.microservices.len(), late.routes.len()), (1, 1));
    let route: Route = serde_json::from_value(
        site.client.get("/routes?application=app").json()["items"][0].clone(),
    )
    .unwrap();
    assert_eq!((route.id, route.to_nodes.len()), (id, 2));
    let detail: ApplicationDetail = site.client.get("/applications/app").ok();
    assert_eq!(
        (
            detail.application.instances,
            detail.application.running,
            detail.routes.len()
        ),
        (3, 0, 1)
    );
}

#[test]
fn a_new_node_with_the_right_labels_gets_what_runs_on_such_nodes() {
    let (site, _first, _second) = site();
    site.apply(
        "app",
        &one("module: sampler@1.0.0, place: {labels: {role: edge}}"),
    );
    let third = Device::join(&site, 3, "gw-3", &[("role", "edge")]);
    let (assignment, _) = third.connect(&site).assignment(|_| true);
    assert_eq!(assignment.microservices.len(), 1);
    let small = Device::join(&site, 4, "gw-4", &[("role", "core")]);
    let (assignment, _) = small.connect(&site).assignment(|_| true);
    assert_eq!(assignment.microservices.len(), 0);
}

#[test]
fn a_change_of_publishers_reaches_every_node() {
    let (site, first, _second) = site();
    let mut link = first.connect(&site);
    let other = haar_protocol::keys::SecretKey::from_seed([88; 32]);
    site.trust("other", &other);
    let (assignment, _) = link.assignment(|assignment| assignment.publishers.len() == 2);
    assert_eq!(assignment.publishers[1].key, other.public());
    site.client.delete("/publishers/other").done();
    let (after, _) = link.assignment(|assignment| assignment.publishers.len() == 1);
    assert!(after.number > assignment.number);
}

#[test]
fn what_imports_sockets_is_applied_with_a_warning_that_each_call_is_denied() {
    let (site, _first, _second) = site();
    let mut python = recipe("python", "1.0.0");
    python.imports.push("wasi:sockets/tcp@0.2.9".into());
    site.push(&python);
    let manifest = one("module: python@1.0.0, place: {node: gw-1}");
    let applied = site.try_apply("app", &manifest).json();
    let warnings = applied["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let warning = warnings[0].as_str().unwrap();
    assert!(
        warning.contains("`python@1.0.0` imports `wasi:sockets`")
            && warning.contains("access-denied"),
        "{warning}"
    );
    let ours = one("module: sampler@1.0.0, place: {node: gw-1}");
    let applied = site.try_apply("app", &ours).json();
    assert_eq!(applied["warnings"], serde_json::json!([]));
}

//! In what a manifest differs from what is applied: which microservices and routes are added, changed
//! and removed, and which keys have other values. Pure; compares typed manifests, with all defaults
//! filled in, so neither order of keys nor comments nor `16384KiB` for `16MiB` are differences. `change`
//! calls it.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::ids::{Digest, Name};
use haar_protocol::manifest::{Credentials, Manifest, Microservice, Relay, Route};
use haar_protocol::rest::{Change, Difference, DifferenceKind, KeyDifference};
use serde::Serialize;
use serde_json::Value;

/// What stands for a secret.
const SECRET: &str = "(secret)";
/// What stands for one that is not the one before.
const OTHER_SECRET: &str = "(another secret)";

/// Values by their keys, with those above them.
type Keys = BTreeMap<String, String>;

/// An application as it is applied, or would be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied<'a> {
    /// What the manifest says.
    pub(crate) manifest: &'a Manifest,
    /// The module of each microservice.
    pub(crate) modules: &'a BTreeMap<Name, Digest>,
    /// The nodes on which each microservice runs.
    pub(crate) nodes: &'a BTreeMap<Name, BTreeSet<Name>>,
}

/// In what an application differs from what it was before, if there was any: itself, then its
/// microservices and its routes, each by name.
pub(crate) fn of_application(before: Option<Applied<'_>>, after: Applied<'_>) -> Vec<Difference> {
    let application = Difference {
        kind: DifferenceKind::Application,
        name: after.manifest.name.to_string(),
        change: Change::Added,
        keys: Vec::new(),
    };
    let whole = match &before {
        None => Some(application),
        Some(before) => {
            let keys = order(before.manifest, after.manifest);
            (!keys.is_empty()).then_some(Difference {
                change: Change::Changed,
                keys,
                ..application
            })
        }
    };
    let microservices = between(
        DifferenceKind::Microservice,
        before.map_or_else(BTreeMap::new, microservices),
        microservices(after),
        &["module", "nodes"],
    );
    let routes = between(
        DifferenceKind::Route,
        before.map_or_else(BTreeMap::new, |before| routes(before.manifest)),
        routes(after.manifest),
        &["delivery"],
    );
    let all = whole.into_iter().chain(microservices).chain(routes);
    all.collect()
}

/// In what a relay differs from what it was before, if there was any. In both `credentials` and client
/// certificates hold no secret in clear; `other_secrets` are the keys of those that are not the same.
pub(crate) fn of_relay(
    before: Option<&Relay>,
    after: &Relay,
    other_secrets: &[&str],
) -> Vec<Difference> {
    let named = |relay: &Relay, other: &[&str]| {
        let mut keys = relay_keys(relay);
        for (key, value) in &mut keys {
            if value == SECRET && other.contains(&key.as_str()) {
                *value = OTHER_SECRET.into();
            }
        }
        BTreeMap::from([(relay.name.to_string(), keys)])
    };
    between(
        DifferenceKind::Relay,
        before.map_or_else(BTreeMap::new, |before| named(before, &[])),
        named(after, other_secrets),
        &["url", "node", "address"],
    )
}

/// The key of a relay's password.
pub(crate) const PASSWORD: &str = "credentials.password";
/// The key of the key of the certificate that is shown to a relay.
pub(crate) const CLIENT_KEY: &str = "client_certificate.key";

fn relay_keys(relay: &Relay) -> Keys {
    let mut keys = keys(relay);
    for key in ["api_version", "kind", "name"] {
        keys.remove(key);
    }
    if matches!(relay.credentials, Some(Credentials::Given { .. })) {
        keys.insert(PASSWORD.into(), SECRET.into());
    }
    if relay.client_certificate.is_some() {
        keys.insert(CLIENT_KEY.into(), SECRET.into());
    }
    keys
}

fn microservices(application: Applied<'_>) -> BTreeMap<String, Keys> {
    let described = |microservice: &Microservice| {
        let mut keys = keys(microservice);
        keys.remove("name");
        if let Some(digest) = application.modules.get(&microservice.name) {
            keys.insert("digest".into(), digest.to_string());
        }
        let nodes = application.nodes.get(&microservice.name);
        if let Some(nodes) = nodes.filter(|nodes| !nodes.is_empty()) {
            let names: Vec<&str> = nodes.iter().map(Name::as_str).collect();
            keys.insert("nodes".into(), names.join(", "));
        }
        (microservice.name.to_string(), keys)
    };
    application
        .manifest
        .microservices
        .iter()
        .map(described)
        .collect()
}

fn routes(manifest: &Manifest) -> BTreeMap<String, Keys> {
    let described = |route: &Route| {
        let mut keys = keys(route);
        for key in ["from", "to", "relay"] {
            keys.remove(key);
        }
        (route_name(route), keys)
    };
    manifest.routes.iter().map(described).collect()
}

/// A route by its ends, and the relay that has the topic.
fn route_name(route: &Route) -> String {
    let end = |end: &haar_protocol::manifest::RouteEnd| match &route.relay {
        Some(relay) if end.port().is_none() => format!("{end} (relay {relay})"),
        _ => end.to_string(),
    };
    format!("{} -> {}", end(&route.from), end(&route.to))
}

/// What is only in another order.
fn order(before: &Manifest, after: &Manifest) -> Vec<KeyDifference> {
    let microservices = |manifest: &Manifest| -> Vec<String> {
        let all = manifest.microservices.iter();
        all.map(|one| one.name.to_string()).collect()
    };
    let routes = |manifest: &Manifest| manifest.routes.iter().map(route_name).collect();
    let lists = [
        ("microservices", microservices(before), microservices(after)),
        ("routes", routes(before), routes(after)),
    ];
    let moved = lists.into_iter().filter_map(|(key, before, after)| {
        let common = |these: &[String], others: &[String]| {
            let both = these.iter().filter(|one| others.contains(one));
            both.cloned().collect::<Vec<_>>().join(", ")
        };
        let (was, is) = (common(&before, &after), common(&after, &before));
        (was != is).then(|| KeyDifference {
            key: key.into(),
            before: Some(was),
            after: Some(is),
        })
    });
    moved.collect()
}

/// What differs between things of one kind, by name. Of what is added or removed the keys in `told`.
fn between(
    kind: DifferenceKind,
    mut before: BTreeMap<String, Keys>,
    mut after: BTreeMap<String, Keys>,
    told: &[&str],
) -> Vec<Difference> {
    let names: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let mut found = Vec::new();
    for name in names {
        let (was, is) = (before.remove(&name), after.remove(&name));
        let change = match (&was, &is) {
            (None, _) => Change::Added,
            (Some(_), None) => Change::Removed,
            (Some(_), Some(_)) => Change::Changed,
        };
        let mut keys = key_differences(&was.unwrap_or_default(), &is.unwrap_or_default());
        if change != Change::Changed {
            keys.retain(|one| told.contains(&one.key.as_str()));
        } else if keys.is_empty() {
            continue;
        }
        found.push(Difference {
            kind,
            name,
            change,
            keys,
        });
    }
    found
}

fn key_differences(before: &Keys, after: &Keys) -> Vec<KeyDifference> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key));
    let mut found: Vec<KeyDifference> = differing
        .map(|key| KeyDifference {
            key: key.clone(),
            before: before.get(key).cloned(),
            after: after.get(key).cloned(),
        })
        .collect();
    // Another reference says it already.
    if found.iter().any(|one| one.key == "module") {
        found.retain(|one| one.key != "digest");
    }
    // A map that was or becomes empty says nothing beside what stood or stands in it.
    let all: Vec<String> = found.iter().map(|one| one.key.clone()).collect();
    found.retain(|one| {
        let is_empty = [&one.before, &one.after].map(|value| value.as_deref() == Some("{}"));
        let inside = format!("{}.", one.key);
        !is_empty.contains(&true) || !all.iter().any(|key| key.starts_with(&inside))
    });
    found
}

/// The keys of a part of a manifest, as programs see it.
fn keys(part: &impl Serialize) -> Keys {
    let value = serde_json::to_value(part).expect("manifests are JSON");
    let mut keys = Keys::new();
    flatten(&value, String::new(), &mut keys);
    keys
}

fn flatten(value: &Value, key: String, keys: &mut Keys) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (name, value) in entries {
                let inner = match key.as_str() {
                    "" => name.clone(),
                    key => format!("{key}.{name}"),
                };
                flatten(value, inner, keys);
            }
        }
        Value::Array(entries) if entries.iter().any(Value::is_object) => {
            for (index, value) in entries.iter().enumerate() {
                flatten(value, format!("{key}[{index}]"), keys);
            }
        }
        Value::Array(entries) => {
            let texts: Vec<String> = entries.iter().map(text).collect();
            keys.insert(key, format!("[{}]", texts.join(", ")));
        }
        Value::Null => {}
        value => drop(keys.insert(key, text(value))),
    }
}

/// A value as a manifest has it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests;

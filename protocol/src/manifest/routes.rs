//! What must hold for the routes of a manifest: both ends exist, carry one type, and are joined
//! once; a topic of devices comes with its relay. And what is allowed but may not be meant.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::ids::{MediaType, Name, PortName};
use crate::mqtt::Retained;
use crate::relay::EMBEDDED;

use super::check::ranges::check_backlog;
use super::errors::{KeyPath, PROBLEMS_MAX, Problem};
use super::suggest;
use super::{Delivery, Manifest, Microservice, Port, Route, RouteEnd};

/// Longest will, in bytes.
const WILL_BYTES_MAX: usize = 1_024;

/// Which end of a route.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    From,
    To,
}

impl End {
    fn key(self) -> &'static str {
        match self {
            End::From => "from",
            End::To => "to",
        }
    }

    fn what(self) -> &'static str {
        match self {
            End::From => "outlet",
            End::To => "inlet",
        }
    }

    fn ports(self, microservice: &Microservice) -> &BTreeMap<Name, Port> {
        match self {
            End::From => &microservice.outlets,
            End::To => &microservice.inlets,
        }
    }

    fn other(self) -> End {
        match self {
            End::From => End::To,
            End::To => End::From,
        }
    }
}

pub(super) fn check_routes(manifest: &Manifest, problems: &mut Vec<Problem>) {
    check_wills(manifest, problems);
    let mut by_name: HashMap<&str, &Microservice> = HashMap::new();
    for microservice in &manifest.microservices {
        by_name
            .entry(microservice.name.as_str())
            .or_insert(microservice);
    }
    let mut first: HashMap<(&RouteEnd, &RouteEnd, &Option<Name>), usize> = HashMap::new();
    for (index, route) in manifest.routes.iter().enumerate() {
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
        let at = KeyPath::default().key("routes").index(index);
        let mut type_at = |end: End, what: &RouteEnd| {
            let port = what.port()?;
            find(manifest, &by_name, end, port, &at, problems)
        };
        let from = type_at(End::From, &route.from);
        let to = type_at(End::To, &route.to);
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            let message = format!(
                "`{}` sends {from}, and `{}` takes {to}",
                route.from, route.to
            );
            problems.push(Problem::with_hint(
                &at,
                message,
                "a route joins ports of one media type",
            ));
        }
        check_topics(route, &at, problems);
        let key = (&route.from, &route.to, &route.relay);
        match first.get(&key) {
            Some(other) => problems.push(Problem::with_hint(
                &at,
                format!("joins the same ends as routes[{other}]"),
                "remove one",
            )),
            None => {
                first.insert(key, index);
            }
        }
        if let Some(backlog) = &route.backlog {
            let at = at.key("backlog");
            check_backlog(backlog, &at, problems);
            if route.delivery == Delivery::Live {
                let message = "a live route keeps nothing";
                let hint = "remove `backlog`, or `delivery: live`";
                problems.push(Problem::with_hint(&at, message, hint));
            }
        }
    }
}

/// What must hold of a route that begins or ends at a topic of devices, and of all others.
fn check_topics(route: &Route, at: &KeyPath, problems: &mut Vec<Problem>) {
    let mut wrong = |key: &str, message: String, hint: &str| {
        problems.push(Problem::with_hint(&at.key(key), message, hint));
    };
    let (from, to) = (route.from.topic(), route.to.topic());
    if let (Some(from), Some(to)) = (from, to) {
        let message = format!("leads from a topic to a topic: `mqtt:{from}` to `mqtt:{to}`");
        let hint = "one end is a microservice: `MICROSERVICE.PORT`; a broker's bridge joins topics";
        wrong("to", message, hint);
        return;
    }
    if let Some(to) = to
        && to.as_name().is_none()
    {
        let message = format!("`mqtt:{to}` is not one topic to publish to");
        let hint = "write it without wildcards, and not beginning with `$`";
        wrong("to", message, hint);
    }
    match (from.or(to), &route.relay) {
        (Some(topic), None) => wrong(
            "relay",
            format!("does not say at which broker the topic `{topic}` is"),
            "add `relay: NAME`, the name of a relay of the site with a `url`",
        ),
        (None, Some(relay)) => wrong(
            "relay",
            format!("names the relay `{relay}`, and neither end is a topic"),
            "remove it: nodes choose relays by themselves; a topic begins with `mqtt:`",
        ),
        (Some(_), Some(relay)) if relay.as_str() == EMBEDDED => wrong(
            "relay",
            "the relay that the controller embeds serves nodes only".to_owned(),
            "write the name of a relay with a `url`, to which the devices connect",
        ),
        _ => {}
    }
    if route.retain && to.is_none() {
        let message = "only the broker of a topic at `to` retains messages".to_owned();
        wrong("retain", message, "remove it");
    }
    check_retained(route, &mut wrong);
    if let Some(will) = &route.will {
        if to.is_none() {
            let message = "a broker publishes it to a topic at `to`".to_owned();
            wrong("will", message, "remove it");
        } else if will.is_empty() || will.len() > WILL_BYTES_MAX {
            let message = format!("has {} bytes, and not 1 to {WILL_BYTES_MAX}", will.len());
            wrong("will", message, "write a word, such as `offline`");
        }
    }
}

/// What each end can say of messages that a broker retains.
fn check_retained(route: &Route, wrong: &mut impl FnMut(&str, String, &str)) {
    let Some(retained) = route.retained else {
        return;
    };
    let clears = retained == Retained::ClearOnDelete;
    match (route.from.topic(), route.to.topic()) {
        (None, None) => {
            let message = "neither end is a topic: no broker retains messages".to_owned();
            wrong("retained", message, "remove it");
        }
        (Some(_), _) if clears => {
            let message = "a node clears its own messages only, at `to`".to_owned();
            let hint = "write `first`, `each-connection` or `none`";
            wrong("retained", message, hint);
        }
        (Some(from), _) if from.group().is_some() => {
            let message = format!("brokers send no retained messages to `mqtt:{from}`");
            wrong("retained", message, "remove it, or the group");
        }
        (None, Some(_)) if !clears => {
            let message = "says what comes from a topic, and this one is at `to`".to_owned();
            wrong("retained", message, "write `clear-on-delete`, or remove it");
        }
        (None, Some(_)) if !route.retain => {
            let message = "there is nothing to clear".to_owned();
            wrong("retained", message, "add `retain: true`");
        }
        _ => {}
    }
}

/// One connection has one will.
fn check_wills(manifest: &Manifest, problems: &mut Vec<Problem>) {
    let mut first: HashMap<(&Name, &Option<Name>), usize> = HashMap::new();
    let routes = manifest.routes.iter().enumerate();
    for (index, route) in routes.filter(|(_, route)| route.will.is_some()) {
        let Some(from) = route.from.port() else {
            continue;
        };
        if let Some(other) = first.insert((&from.microservice, &route.relay), index) {
            problems.push(Problem::with_hint(
                &KeyPath::default().key("routes").index(index).key("will"),
                format!("routes[{other}] of the microservice has a will at the relay"),
                "keep one: a connection to a broker has one will",
            ));
        }
    }
}

/// The type of the port at one end of a route, if there is such a port.
fn find<'m>(
    manifest: &Manifest,
    by_name: &HashMap<&str, &'m Microservice>,
    end: End,
    port: &PortName,
    at: &KeyPath,
    problems: &mut Vec<Problem>,
) -> Option<&'m MediaType> {
    let at = at.key(end.key());
    let Some(microservice) = by_name.get(port.microservice.as_str()) else {
        let names = manifest
            .microservices
            .iter()
            .map(|microservice| microservice.name.as_str());
        problems.push(Problem {
            at,
            message: format!("there is no microservice `{}`", port.microservice),
            hint: suggest::hint(port.microservice.as_str(), names, "microservices"),
        });
        return None;
    };
    if let Some(found) = end.ports(microservice).get(&port.port) {
        return Some(&found.media_type);
    }
    let names = end.ports(microservice).keys().map(Name::as_str);
    let what = end.what();
    let hint = if end.other().ports(microservice).contains_key(&port.port) {
        Some(format!(
            "`{}` is an {} of it",
            port.port,
            end.other().what()
        ))
    } else if end.ports(microservice).is_empty() {
        Some(format!(
            "it has no {what}s: add `{what}s: {{{}: MEDIA/TYPE}}` to it",
            port.port
        ))
    } else {
        suggest::hint(port.port.as_str(), names, &format!("{what}s of it"))
    };
    problems.push(Problem {
        at,
        message: format!("`{}` has no {what} `{}`", port.microservice, port.port),
        hint,
    });
    None
}

/// What works but may not be meant, for people: inlets that no route leads to, outlets that no
/// route begins at.
pub fn warnings(manifest: &Manifest) -> Vec<String> {
    let begins: HashSet<(&Name, &Name)> = manifest
        .routes
        .iter()
        .filter_map(|route| route.from.port())
        .map(|from| (&from.microservice, &from.port))
        .collect();
    let ends: HashSet<(&Name, &Name)> = manifest
        .routes
        .iter()
        .filter_map(|route| route.to.port())
        .map(|to| (&to.microservice, &to.port))
        .collect();
    let mut warnings = Vec::new();
    if manifest.microservices.is_empty() {
        warnings.push("the application has no microservices".to_owned());
    }
    for microservice in &manifest.microservices {
        let name = &microservice.name;
        for port in microservice
            .outlets
            .keys()
            .filter(|port| !begins.contains(&(name, *port)))
        {
            warnings.push(format!(
                "no route begins at the outlet `{name}.{port}`: what it publishes goes nowhere"
            ));
        }
        for port in microservice
            .inlets
            .keys()
            .filter(|port| !ends.contains(&(name, *port)))
        {
            warnings.push(format!(
                "no route leads to the inlet `{name}.{port}`: nothing ever arrives there"
            ));
        }
    }
    warnings
}

//! What must hold for the routes of a manifest: both ends exist, carry one type, and are joined
//! once. And what is allowed but may not be meant.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::ids::{MediaType, Name, PortName};

use super::check::ranges::check_backlog;
use super::errors::{KeyPath, PROBLEMS_MAX, Problem};
use super::suggest;
use super::{Delivery, Manifest, Microservice, Port};

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
    let mut by_name: HashMap<&str, &Microservice> = HashMap::new();
    for microservice in &manifest.microservices {
        by_name
            .entry(microservice.name.as_str())
            .or_insert(microservice);
    }
    let mut first: HashMap<(&PortName, &PortName), usize> = HashMap::new();
    for (index, route) in manifest.routes.iter().enumerate() {
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
        let at = KeyPath::default().key("routes").index(index);
        let from = find(manifest, &by_name, End::From, &route.from, &at, problems);
        let to = find(manifest, &by_name, End::To, &route.to, &at, problems);
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
        match first.get(&(&route.from, &route.to)) {
            Some(other) => problems.push(Problem::with_hint(
                &at,
                format!("joins the same ports as routes[{other}]"),
                "remove one",
            )),
            None => {
                first.insert((&route.from, &route.to), index);
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
        .map(|route| (&route.from.microservice, &route.from.port))
        .collect();
    let ends: HashSet<(&Name, &Name)> = manifest
        .routes
        .iter()
        .map(|route| (&route.to.microservice, &route.to.port))
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

//! Names that requests bring and that nothing has: one answer for every kind of thing, with the name that
//! may be meant.

use haar_protocol::ids::Name;
use haar_protocol::manifest::meant;
use haar_protocol::relay::EMBEDDED;
use rusqlite::Connection;

use crate::db;
use crate::failure::{Failure, Kind};

/// A kind of thing with names.
struct Named {
    /// What people call it.
    what: &'static str,
    /// For programs.
    code: &'static str,
    /// How all of them are listed.
    list: &'static str,
}

fn unknown(kind: &Named, name: &str, known: &[String]) -> Failure {
    let failure = Failure::new(
        Kind::NotFound,
        kind.code,
        format!("there is no {} `{name}`", kind.what),
    );
    match meant(name, known.iter().map(String::as_str)) {
        Some(near) => failure.hint(near),
        None => failure.hint(format!("see them with `haar get {}`", kind.list)),
    }
}

/// There is no such application.
pub(crate) fn unknown_application(connection: &Connection, name: &Name) -> Failure {
    let rows = db::applications::list(connection).unwrap_or_default();
    let known: Vec<String> = rows
        .into_iter()
        .map(|row| row.manifest.name.to_string())
        .collect();
    let kind = Named {
        what: "application",
        code: "unknown_application",
        list: "applications",
    };
    unknown(&kind, name.as_str(), &known)
}

/// There is no such node.
pub(crate) fn unknown_node(connection: &Connection, name: &Name) -> Failure {
    let rows = db::nodes::list(connection).unwrap_or_default();
    let known: Vec<String> = rows.into_iter().map(|row| row.name.to_string()).collect();
    let kind = Named {
        what: "node",
        code: "unknown_node",
        list: "nodes",
    };
    unknown(&kind, name.as_str(), &known)
}

/// There is no such publisher.
pub(crate) fn unknown_publisher(connection: &Connection, name: &Name) -> Failure {
    let rows = db::publishers::list(connection).unwrap_or_default();
    let known: Vec<String> = rows.into_iter().map(|row| row.name.to_string()).collect();
    let kind = Named {
        what: "publisher",
        code: "unknown_publisher",
        list: "publishers",
    };
    unknown(&kind, name.as_str(), &known)
}

/// There is no such relay.
pub(crate) fn unknown_relay(connection: &Connection, name: &Name) -> Failure {
    if name.as_str() == EMBEDDED {
        return Failure::new(
            Kind::Conflict,
            "embedded_relay",
            "nothing was said of the controller's own relay: it is as it is by itself",
        );
    }
    let rows = db::relays::list(connection).unwrap_or_default();
    let applied = rows.into_iter().map(|row| row.manifest.name.to_string());
    let known: Vec<String> = applied.chain([EMBEDDED.to_owned()]).collect();
    let kind = Named {
        what: "relay",
        code: "unknown_relay",
        list: "relays",
    };
    unknown(&kind, name.as_str(), &known)
}

/// Checks what a request is restricted to.
///
/// # Errors
/// When there is no such application, no such microservice in it (in any, without one), or no such node.
pub(crate) fn check_names(
    connection: &Connection,
    application: Option<&Name>,
    microservice: Option<&Name>,
    node: Option<&Name>,
) -> Result<(), Failure> {
    let rows = db::applications::list(connection)?;
    let of_application: Vec<_> = rows
        .iter()
        .filter(|row| application.is_none_or(|name| row.manifest.name == *name))
        .collect();
    if let Some(name) = application
        && of_application.is_empty()
    {
        return Err(unknown_application(connection, name));
    }
    if let Some(name) = microservice {
        let microservices = of_application
            .iter()
            .flat_map(|row| &row.manifest.microservices);
        let known: Vec<String> = microservices.map(|one| one.name.to_string()).collect();
        if !known.iter().any(|one| one == name.as_str()) {
            let kind = Named {
                what: "microservice",
                code: "unknown_microservice",
                list: "microservices",
            };
            let name = match application {
                Some(application) => format!("{application}/{name}"),
                None => name.to_string(),
            };
            let known: Vec<String> = match application {
                Some(application) => known
                    .iter()
                    .map(|one| format!("{application}/{one}"))
                    .collect(),
                None => known,
            };
            return Err(unknown(&kind, &name, &known));
        }
    }
    match node {
        Some(name) if db::nodes::id_by_name(connection, name)?.is_none() => {
            Err(unknown_node(connection, name))
        }
        _ => Ok(()),
    }
}

//! An application as a case writes it: guests with what differs from the defaults of the suite,
//! and routes. Becomes a manifest in JSON, which is YAML too.

use haar_conformance_artifacts::Guest;
use serde_json::{Map, Value, json};

use crate::modules::VERSION;

/// The media type of all ports of the suite.
pub(crate) const TYPE: &str = "application/octet-stream";

/// An application.
#[derive(Debug, Clone)]
pub(crate) struct Application {
    /// Its name.
    pub(crate) name: String,
    /// The guests that must be pushed.
    pub(crate) guests: Vec<Guest>,
    microservices: Vec<Value>,
    routes: Vec<Value>,
}

impl Application {
    /// One with nothing in it.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            guests: Vec::new(),
            microservices: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// Adds a microservice that runs a guest, with an inlet `in` and an outlet `out`. What `more`
    /// has replaces what the manifest would say: limits, grants, configuration, ports, place.
    pub(crate) fn with(mut self, name: &str, guest: Guest, more: Value) -> Self {
        if !self.guests.contains(&guest) {
            self.guests.push(guest);
        }
        self.with_module(name, guest.name(), more)
    }

    /// The same for a module that was pushed under this name.
    pub(crate) fn with_module(mut self, name: &str, module: &str, more: Value) -> Self {
        let mut microservice = json!({
            "name": name,
            "module": format!("{module}@{VERSION}"),
            "inlets": { "in": TYPE },
            "outlets": { "out": TYPE },
        });
        if let (Some(entries), Value::Object(more)) = (microservice.as_object_mut(), more) {
            entries.extend(more);
        }
        self.microservices.push(microservice);
        self
    }

    /// Adds a route between `MICROSERVICE.OUTLET` and `MICROSERVICE.INLET`.
    pub(crate) fn route(mut self, from: &str, to: &str) -> Self {
        self.routes
            .push(json!({ "from": from, "to": to, "delivery": "live" }));
        self
    }

    /// The same for a durable route.
    pub(crate) fn durable_route(mut self, from: &str, to: &str) -> Self {
        self.routes.push(json!({ "from": from, "to": to }));
        self
    }

    /// Adds a durable route from topics of a relay, or to one of them.
    pub(crate) fn topic_route(self, relay: &str, from: &str, to: &str) -> Self {
        self.any_route(json!({ "from": from, "to": to, "relay": relay }))
    }

    /// Adds a durable route with what becomes of messages that can't be delivered yet.
    pub(crate) fn route_with_backlog(mut self, from: &str, to: &str, backlog: Value) -> Self {
        self.routes
            .push(json!({ "from": from, "to": to, "backlog": backlog }));
        self
    }

    /// Adds a route as a manifest has it.
    pub(crate) fn any_route(mut self, route: Value) -> Self {
        self.routes.push(route);
        self
    }

    /// Sets a value of a microservice's configuration.
    pub(crate) fn configure(&mut self, name: &str, key: &str, value: &str) {
        self.entry(name, "configuration")
            .insert(key.to_owned(), value.into());
    }

    /// Has the driver called `name` say lines when the application is applied, in this round of a
    /// conversation.
    pub(crate) fn say(&mut self, name: &str, round: u32, lines: &str) {
        self.configure(name, "round", &round.to_string());
        self.configure(name, "say", lines);
    }

    /// Sets a limit of a microservice.
    pub(crate) fn limit(&mut self, name: &str, key: &str, value: Value) {
        self.entry(name, "limits").insert(key.to_owned(), value);
    }

    /// Sets anything of a microservice.
    pub(crate) fn set(&mut self, name: &str, key: &str, value: Value) {
        self.microservice(name)[key] = value;
    }

    /// Takes a microservice out, with its routes.
    pub(crate) fn remove(&mut self, name: &str) {
        self.microservices.retain(|one| one["name"] != name);
        let is_of = |port: &Value| {
            let port = port.as_str().unwrap_or_default();
            port.split('.').next() == Some(name)
        };
        self.routes
            .retain(|route| !is_of(&route["from"]) && !is_of(&route["to"]));
    }

    /// The manifest. What has no place runs on `node`.
    pub(crate) fn manifest(&self, node: &str) -> Value {
        let mut microservices = self.microservices.clone();
        for one in &mut microservices {
            if one.get("place").is_none() {
                one["place"] = json!({ "node": node });
            }
        }
        json!({
            "api_version": "haar/v1",
            "kind": "Application",
            "name": self.name,
            "microservices": microservices,
            "routes": self.routes,
        })
    }

    fn microservice(&mut self, name: &str) -> &mut Value {
        self.microservices
            .iter_mut()
            .find(|one| one["name"] == name)
            .expect("a case names its own microservices")
    }

    fn entry(&mut self, name: &str, key: &str) -> &mut Map<String, Value> {
        let microservice = self.microservice(name);
        if microservice.get(key).is_none() {
            microservice[key] = json!({});
        }
        microservice[key]
            .as_object_mut()
            .expect("the suite writes maps there")
    }
}

//! Reads an assignment that a newer release may have written. A grant, a limit or a key that this
//! release does not know might narrow what it does know, so the microservice that uses it must not
//! run. All others must: one such microservice must not take the whole assignment from an older agent.
//! What is not understood is therefore noted at the microservice that it concerns, and the rest is read.
//!
//! ```text
//! key of the assignment                                passed over
//! key of a microservice, of a part of it, or a value   noted at the microservice
//! the same of a route                                  noted at the microservices at its ends here
//! names, module, a relay, a peer                       the assignment is refused: nothing narrower is concerned
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::{Map, Value};

use super::{Assignment, Microservice, MicroserviceName, Peer, Port, Publisher, Route, TopicRoute};
use crate::ids::{Name, NodeId, SiteId};
use crate::manifest::Delivery;
use crate::relay::{RelayAccess, ServedRelay};

/// Characters of a parser's words that a note repeats.
const WORDS_CHARACTERS_MAX: usize = 200;

/// An assignment as it is written.
#[derive(Deserialize)]
pub(super) struct Wire {
    site: SiteId,
    node: NodeId,
    node_name: Name,
    labels: BTreeMap<String, String>,
    number: u64,
    issued_ms: u64,
    publishers: Vec<Publisher>,
    #[serde(default)]
    signatures: BTreeMap<String, String>,
    #[serde(default)]
    relays: Vec<RelayAccess>,
    #[serde(default)]
    serves: Vec<ServedRelay>,
    #[serde(default)]
    link_key_generation: u64,
    peers: Vec<Peer>,
    microservices: Vec<Microservice>,
    routes: Vec<Entry<Route>>,
    #[serde(default)]
    topics: Vec<Entry<TopicRoute>>,
    #[serde(default)]
    brokers: Vec<RelayAccess>,
    #[serde(default)]
    lives: Option<BTreeMap<String, u64>>,
    #[serde(default)]
    ended: Vec<String>,
}

impl From<Wire> for Assignment {
    fn from(wire: Wire) -> Self {
        let mut assignment = Self {
            site: wire.site,
            node: wire.node,
            node_name: wire.node_name,
            labels: wire.labels,
            number: wire.number,
            issued_ms: wire.issued_ms,
            publishers: wire.publishers,
            signatures: wire.signatures,
            relays: wire.relays,
            serves: wire.serves,
            link_key_generation: wire.link_key_generation,
            peers: wire.peers,
            microservices: wire.microservices,
            routes: Vec::with_capacity(wire.routes.len()),
            topics: Vec::with_capacity(wire.topics.len()),
            brokers: wire.brokers,
            lives: wire.lives,
            ended: wire.ended,
        };
        if let Some(lives) = &assignment.lives {
            for microservice in &mut assignment.microservices {
                let life = lives.get(&microservice.name.to_string());
                microservice.life = Some(life.copied().unwrap_or(0));
            }
        }
        for entry in wire.routes {
            assignment.note(&entry.ends, &entry.unknown);
            assignment.routes.extend(entry.value);
        }
        for entry in wire.topics {
            assignment.note(&entry.ends, &entry.unknown);
            assignment.topics.extend(entry.value);
        }
        assignment
    }
}

impl Assignment {
    /// Notes what is not understood of a route at the microservices of this node where it ends.
    fn note(&mut self, ends: &[End], unknown: &[String]) {
        if unknown.is_empty() {
            return;
        }
        let here = |end: &&End| end.node.as_ref().is_none_or(|node| *node == self.node);
        for end in ends.iter().filter(here) {
            for microservice in &mut self.microservices {
                if microservice.name == end.microservice {
                    let notes = unknown.iter().map(|what| format!("{what} of a route"));
                    microservice.unknown.extend(notes);
                }
            }
        }
    }
}

/// A route, as far as it is understood.
struct Entry<T> {
    /// None when a part is not understood without which there is no route.
    value: Option<T>,
    ends: Vec<End>,
    unknown: Vec<String>,
}

/// The microservice at one end of a route; without a node, one of the node of the assignment.
struct End {
    node: Option<NodeId>,
    microservice: MicroserviceName,
}

impl<'de> Deserialize<'de> for Entry<Route> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut parts = Parts::of(deserializer)?;
        let id = parts.required("id")?;
        let (from, to) = (parts.port("from")?, parts.port("to")?);
        let end = |port: &Port| End {
            node: Some(port.node.clone()),
            microservice: port.microservice.clone(),
        };
        let ends = vec![end(&from), end(&to)];
        let content_type = parts.needed("content_type")?;
        // Kept as a durable route when it is something else: the log of the route stays on the disk.
        let delivery = parts.needed("delivery")?.unwrap_or(Delivery::Durable);
        let backlog = parts.part("backlog", "key `backlog.");
        let value = content_type.map(|content_type| Route {
            id,
            from,
            to,
            content_type,
            delivery,
            backlog,
        });
        Ok(Self {
            value,
            ends,
            unknown: parts.finish(),
        })
    }
}

impl<'de> Deserialize<'de> for Entry<TopicRoute> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut parts = Parts::of(deserializer)?;
        let id = parts.required("id")?;
        let microservice = parts.name()?;
        let ends = vec![End {
            node: None,
            microservice: microservice.clone(),
        }];
        let port = parts.required("port")?;
        let relay = parts.required("relay")?;
        let topic = parts.one_of(&["from", "to"]);
        let content_type = parts.needed("content_type")?;
        let delivery = parts.needed("delivery")?.unwrap_or(Delivery::Durable);
        let backlog = parts.part("backlog", "key `backlog.");
        let retained = parts.value("retained");
        let value = topic
            .zip(content_type)
            .map(|(topic, content_type)| TopicRoute {
                id,
                relay,
                topic,
                microservice,
                port,
                content_type,
                delivery,
                backlog,
                retained,
            });
        Ok(Self {
            value,
            ends,
            unknown: parts.finish(),
        })
    }
}

impl<'de> Deserialize<'de> for Microservice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut parts = Parts::of(deserializer)?;
        Ok(Self {
            name: parts.name()?,
            module: parts.required("module")?,
            module_bytes: parts.required("module_bytes")?,
            module_label: parts.required("module_label")?,
            limits: parts.part("limits", "limit `"),
            grants: parts.part("grants", "grant `"),
            configuration: parts.part("configuration", "key `configuration."),
            outlets: parts.part("outlets", "key `outlets."),
            inlets: parts.part("inlets", "key `inlets."),
            log_level: parts.value("log_level").unwrap_or_default(),
            restart: parts.part("restart", "key `restart."),
            retry: parts.part("retry", "key `retry."),
            inlet_history: parts.part("inlet_history", "key `inlet_history."),
            outlet_history: parts.part("outlet_history", "key `outlet_history."),
            unknown: parts.finish(),
            life: None,
        })
    }
}

/// The keys of an object that were not read yet, and what was not understood of the others.
struct Parts {
    rest: Map<String, Value>,
    unknown: Vec<String>,
}

impl Parts {
    fn of<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self {
            rest: Map::deserialize(deserializer)?,
            unknown: Vec::new(),
        })
    }

    /// What nothing can be made of without it.
    fn required<T: DeserializeOwned, E: Error>(&mut self, key: &'static str) -> Result<T, E> {
        let value = self.rest.remove(key);
        let value = value.ok_or_else(|| E::missing_field(key))?;
        T::deserialize(value).map_err(|error| E::custom(format_args!("{key}: {error}")))
    }

    fn name<E: Error>(&mut self) -> Result<MicroserviceName, E> {
        Ok(MicroserviceName {
            application: self.required("application")?,
            microservice: self.required("microservice")?,
        })
    }

    fn port<E: Error>(&mut self, key: &'static str) -> Result<Port, E> {
        let mut parts = Self {
            rest: self.required(key)?,
            unknown: Vec::new(),
        };
        let port = Port {
            node: parts.required("node")?,
            microservice: parts.name()?,
            port: parts.required("port")?,
        };
        self.unknown.extend(parts.finish());
        Ok(port)
    }

    /// A value that may not be left out; a note when it is not understood.
    fn needed<T: DeserializeOwned, E: Error>(&mut self, key: &'static str) -> Result<Option<T>, E> {
        if self.rest.contains_key(key) {
            Ok(self.value(key))
        } else {
            Err(E::missing_field(key))
        }
    }

    /// A value that may be left out; a note when it is not understood.
    fn value<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.rest.remove(key)?;
        match understood(value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.unknown.push(format!("the key `{key}`{why}"));
                None
            }
        }
    }

    /// A value of which these keys are the variants.
    fn one_of<T: DeserializeOwned>(&mut self, keys: &[&str]) -> Option<T> {
        let found = keys.iter().find_map(|key| self.rest.remove_entry(*key));
        let Some((key, value)) = found else {
            self.unknown
                .push(format!("a route without any of {keys:?}"));
            return None;
        };
        match understood(Value::Object(Map::from_iter([(key.clone(), value)]))) {
            Ok(value) => Some(value),
            Err(why) => {
                self.unknown.push(format!("the key `{key}`{why}"));
                None
            }
        }
    }

    /// A part of which every key may be left out: those that are understood, and a note that begins
    /// with `what` for each other one.
    fn part<T: DeserializeOwned + Default>(&mut self, key: &str, what: &str) -> T {
        let fields = match self.rest.remove(key) {
            None => return T::default(),
            Some(Value::Object(fields)) => fields,
            Some(_) => {
                self.unknown.push(format!("the key `{key}`"));
                return T::default();
            }
        };
        let mut known = Map::new();
        for (name, value) in fields {
            let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
            match understood::<T>(alone) {
                Ok(_) => {
                    known.insert(name, value);
                }
                Err(why) => self.unknown.push(format!("the {what}{name}`{why}")),
            }
        }
        T::deserialize(Value::Object(known)).unwrap_or_default()
    }

    /// What was not understood; keys that nobody has read among it.
    fn finish(mut self) -> Vec<String> {
        let keys = self.rest.keys().map(|key| format!("the key `{key}`"));
        self.unknown.extend(keys);
        self.unknown
    }
}

/// The value, when this release knows every part of it; otherwise what a person needs to know beside
/// the key.
fn understood<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    let mut passed_over = Vec::new();
    let outcome = serde_ignored::deserialize(value, |path| passed_over.push(path.to_string()));
    match (outcome, passed_over.as_slice()) {
        (Ok(value), []) => Ok(value),
        // The key itself, or something in it.
        (Ok(_), [path, ..]) => Err(path
            .split_once('.')
            .map_or_else(String::new, |(_, inner)| format!(" (`{inner}` in it)"))),
        (Err(error), _) => {
            let words: String = error
                .to_string()
                .chars()
                .take(WORDS_CHARACTERS_MAX)
                .collect();
            Err(format!(" ({words})"))
        }
    }
}

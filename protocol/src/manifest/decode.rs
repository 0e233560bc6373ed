//! From a marked tree to the manifest's types. Strict: every key is known, stands once and has a
//! value of its kind. Goes on after an error as far as it can, so that a person sees all of them
//! at once. What the single values mean together is for the checks that follow.

mod limits;
mod grants;
mod configuration;
mod relay;

use crate::ids::MediaType;
use crate::limits::Retention;
use crate::log::Level;
use crate::mqtt::Retained;

use super::check::{CONFIGURATION_KEYS_MAX, LABELS_MAX, MICROSERVICES_MAX, PORTS_MAX, ROUTES_MAX};
use super::errors::{KeyPath, Problem};
use super::parse::Document;
use super::tree::{Mark, Node, Value};
use super::values::{Decoded, Decoder};
use super::{ApiVersion, Delivery, Kind, Manifest, Microservice, Place, Port, Route};

/// The levels of log lines, as people write them.
const LEVELS: [(&str, Level); 6] = [
    ("trace", Level::Trace),
    ("debug", Level::Debug),
    ("info", Level::Info),
    ("warn", Level::Warn),
    ("error", Level::Error),
    ("critical", Level::Critical),
];

/// Decodes the document that stands in `root`, or says everything that is wrong with it.
pub(super) fn decode(root: &Node, is_json: bool) -> Result<Document, Vec<(Problem, Mark)>> {
    let mut decoder = Decoder {
        is_json,
        ..Decoder::default()
    };
    let document = match is_relay(root) {
        true => decoder
            .relay(root)
            .map(|relay| Document::Relay(Box::new(relay))),
        false => decoder.manifest(root).map(Document::Application),
    };
    match document {
        Some(document) if decoder.problems.is_empty() => Ok(document),
        _ => Err(decoder.problems),
    }
}

fn is_relay(root: &Node) -> bool {
    let Value::Map(entries) = &root.value else {
        return false;
    };
    entries.iter().any(|(key, node)| {
        let is_kind = key.text == "kind";
        is_kind && matches!(&node.value, Value::Scalar { text, .. } if text == "Relay")
    })
}

// What a manifest is made of, from the whole to the parts.
impl Decoder {
    fn manifest(&mut self, node: &Node) -> Decoded<Manifest> {
        let top = KeyPath::default();
        let known = ["api_version", "kind", "name", "microservices", "routes"];
        let fields = self.fields(node, &top, &known)?;
        let api_version = self.required(&fields, "api_version", |this, node, at| {
            this.one_of(node, at, &[("haar/v1", ApiVersion::V1)])
        });
        let kind = self.required(&fields, "kind", |this, node, at| {
            // A relay never comes here: the word is offered to who has mistyped it.
            let kinds = [
                ("Application", Kind::Application),
                ("Relay", Kind::Application),
            ];
            this.one_of(node, at, &kinds)
        });
        let name = self.required(&fields, "name", Self::formed);
        let microservices = self.required(&fields, "microservices", |this, node, at| {
            this.list(node, at, MICROSERVICES_MAX, Self::microservice)
        });
        let routes = self.optional(&fields, "routes", |this, node, at| {
            this.list(node, at, ROUTES_MAX, Self::route)
        });
        Some(Manifest {
            api_version: api_version?,
            kind: kind?,
            name: name?,
            microservices: microservices?,
            routes: routes?.unwrap_or_default(),
        })
    }

    fn microservice(&mut self, node: &Node, at: &KeyPath) -> Decoded<Microservice> {
        let known = [
            "name",
            "module",
            "place",
            "limits",
            "grants",
            "configuration",
            "configuration_schema",
            "log_level",
            "restart",
            "retry",
            "outlets",
            "inlets",
        ];
        let fields = self.fields(node, at, &known)?;
        let name = self.required(&fields, "name", Self::formed);
        let module = self.required(&fields, "module", Self::formed);
        let place = self.required(&fields, "place", Self::place);
        let limits = self.optional(&fields, "limits", Self::limits);
        let grants = self.optional(&fields, "grants", Self::grants);
        let configuration = self.optional(&fields, "configuration", |this, node, at| {
            this.map(node, at, CONFIGURATION_KEYS_MAX, Self::text)
        });
        let configuration_schema =
            self.optional(&fields, "configuration_schema", |this, node, at| {
                this.map(node, at, CONFIGURATION_KEYS_MAX, Self::configuration_key)
            });
        let log_level = self.optional(&fields, "log_level", |this, node, at| {
            this.one_of(node, at, &LEVELS)
        });
        let restart = self.optional(&fields, "restart", Self::restart);
        let retry = self.optional(&fields, "retry", Self::retry);
        let outlets = self.optional(&fields, "outlets", |this, node, at| {
            this.named_map(node, at, PORTS_MAX, Self::port)
        });
        let inlets = self.optional(&fields, "inlets", |this, node, at| {
            this.named_map(node, at, PORTS_MAX, Self::port)
        });
        Some(Microservice {
            name: name?,
            module: module?,
            place: place?,
            limits: limits?.unwrap_or_default(),
            grants: grants?.unwrap_or_default(),
            configuration: configuration?.unwrap_or_default(),
            configuration_schema: configuration_schema?,
            log_level: log_level?.unwrap_or_default(),
            restart: restart?.unwrap_or_default(),
            retry: retry?.unwrap_or_default(),
            outlets: outlets?.unwrap_or_default(),
            inlets: inlets?.unwrap_or_default(),
        })
    }

    fn place(&mut self, node: &Node, at: &KeyPath) -> Decoded<Place> {
        let fields = self.fields(node, at, &["node", "labels", "count"])?;
        let node = self.optional(&fields, "node", Self::formed);
        let labels = self.optional(&fields, "labels", |this, node, at| {
            this.map(node, at, LABELS_MAX, Self::text)
        });
        let count = self.optional(&fields, "count", Self::number);
        Some(Place {
            node: node?,
            labels: labels?,
            count: count?,
        })
    }

    /// A media type alone, or a map with more about the port.
    fn port(&mut self, node: &Node, at: &KeyPath) -> Decoded<Port> {
        if !matches!(node.value, Value::Map(_)) {
            return Some(Port::from(self.formed::<MediaType>(node, at)?));
        }
        let fields = self.fields(node, at, &["type", "history"])?;
        let media_type = self.required(&fields, "type", Self::formed);
        let history = self.optional(&fields, "history", Self::retention);
        Some(Port {
            media_type: media_type?,
            history: history?,
        })
    }

    fn retention(&mut self, node: &Node, at: &KeyPath) -> Decoded<Retention> {
        let fields = self.fields(node, at, &["size", "age"])?;
        let size = self.required(&fields, "size", Self::formed);
        let age = self.required(&fields, "age", Self::formed);
        Some(Retention {
            size: size?,
            age: age?,
        })
    }

    fn route(&mut self, node: &Node, at: &KeyPath) -> Decoded<Route> {
        let fields = self.fields(
            node,
            at,
            &[
                "from", "to", "relay", "retain", "retained", "will", "delivery", "backlog",
            ],
        )?;
        let from = self.required(&fields, "from", Self::formed);
        let to = self.required(&fields, "to", Self::formed);
        let relay = self.optional(&fields, "relay", Self::formed);
        let retain = self.optional(&fields, "retain", Self::boolean);
        let retained = self.optional(&fields, "retained", |this, node, at| {
            let choices = [
                ("first", Retained::First),
                ("each-connection", Retained::EachConnection),
                ("none", Retained::None),
                ("clear-on-delete", Retained::ClearOnDelete),
            ];
            this.one_of(node, at, &choices)
        });
        let will = self.optional(&fields, "will", Self::text);
        let delivery = self.optional(&fields, "delivery", |this, node, at| {
            this.one_of(
                node,
                at,
                &[("durable", Delivery::Durable), ("live", Delivery::Live)],
            )
        });
        let backlog = self.optional(&fields, "backlog", Self::backlog);
        Some(Route {
            from: from?,
            to: to?,
            relay: relay?,
            retain: retain?.unwrap_or_default(),
            retained: retained?,
            will: will?,
            delivery: delivery?.unwrap_or_default(),
            backlog: backlog?,
        })
    }
}

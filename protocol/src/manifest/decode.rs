//! From a marked tree to the manifest's types. Strict: every key is known, stands once and has a
//! value of its kind. Goes on after an error as far as it can, so that a person sees all of them
//! at once. What the single values mean together is for the checks that follow.

use crate::grants::{Access, DirectoryGrant, Grants};
use crate::limits::Limits;

use super::check::{
    CONFIGURATION_KEYS_MAX, DIRECTORIES_MAX, LABELS_MAX, MICROSERVICES_MAX, PORTS_MAX, ROUTES_MAX,
};
use super::errors::{KeyPath, Problem};
use super::tree::{Mark, Node};
use super::values::{Decoded, Decoder};
use super::{ApiVersion, Delivery, Kind, Manifest, Microservice, Place, Route};

/// Decodes the manifest that stands in `root`, or says everything that is wrong with it.
pub(super) fn decode(root: &Node) -> Result<Manifest, Vec<(Problem, Mark)>> {
    let mut decoder = Decoder::default();
    let manifest = decoder.manifest(root);
    match manifest {
        Some(manifest) if decoder.problems.is_empty() => Ok(manifest),
        _ => Err(decoder.problems),
    }
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
            this.one_of(node, at, &[("Application", Kind::Application)])
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
        let outlets = self.optional(&fields, "outlets", |this, node, at| {
            this.formed_map(node, at, PORTS_MAX)
        });
        let inlets = self.optional(&fields, "inlets", |this, node, at| {
            this.formed_map(node, at, PORTS_MAX)
        });
        Some(Microservice {
            name: name?,
            module: module?,
            place: place?,
            limits: limits?.unwrap_or_default(),
            grants: grants?.unwrap_or_default(),
            configuration: configuration?.unwrap_or_default(),
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

    fn limits(&mut self, node: &Node, at: &KeyPath) -> Decoded<Limits> {
        let known = [
            "memory",
            "fuel_per_call",
            "call_timeout",
            "inbox_messages",
            "message_size",
            "publish_per_second",
            "log_lines_per_second",
            "timers",
        ];
        let fields = self.fields(node, at, &known)?;
        let memory = self.optional(&fields, "memory", Self::formed);
        let fuel_per_call = self.optional(&fields, "fuel_per_call", Self::number);
        let call_timeout = self.optional(&fields, "call_timeout", Self::formed);
        let inbox_messages = self.optional(&fields, "inbox_messages", Self::number);
        let message_size = self.optional(&fields, "message_size", Self::formed);
        let publish_per_second = self.optional(&fields, "publish_per_second", Self::number);
        let log_lines_per_second = self.optional(&fields, "log_lines_per_second", Self::number);
        let timers = self.optional(&fields, "timers", Self::number);
        let usual = Limits::default();
        Some(Limits {
            memory: memory?.unwrap_or(usual.memory),
            fuel_per_call: fuel_per_call?.unwrap_or(usual.fuel_per_call),
            call_timeout: call_timeout?.unwrap_or(usual.call_timeout),
            inbox_messages: inbox_messages?.unwrap_or(usual.inbox_messages),
            message_size: message_size?.unwrap_or(usual.message_size),
            publish_per_second: publish_per_second?.unwrap_or(usual.publish_per_second),
            log_lines_per_second: log_lines_per_second?.unwrap_or(usual.log_lines_per_second),
            timers: timers?.unwrap_or(usual.timers),
            ..usual
        })
    }

    fn grants(&mut self, node: &Node, at: &KeyPath) -> Decoded<Grants> {
        let fields = self.fields(node, at, &["directories"])?;
        let directories = self.optional(&fields, "directories", |this, node, at| {
            this.list(node, at, DIRECTORIES_MAX, Self::directory)
        });
        Some(Grants {
            directories: directories?.unwrap_or_default(),
            ..Grants::default()
        })
    }

    fn directory(&mut self, node: &Node, at: &KeyPath) -> Decoded<DirectoryGrant> {
        let fields = self.fields(node, at, &["host", "guest", "access"])?;
        let host = self.required(&fields, "host", Self::text);
        let guest = self.required(&fields, "guest", Self::text);
        let access = self.optional(&fields, "access", |this, node, at| {
            this.one_of(
                node,
                at,
                &[
                    ("read-only", Access::ReadOnly),
                    ("read-write", Access::ReadWrite),
                ],
            )
        });
        Some(DirectoryGrant {
            host: host?,
            guest: guest?,
            access: access?.unwrap_or_default(),
            quota: None,
            optional: false,
        })
    }

    fn route(&mut self, node: &Node, at: &KeyPath) -> Decoded<Route> {
        let fields = self.fields(node, at, &["from", "to", "delivery"])?;
        let from = self.required(&fields, "from", Self::formed);
        let to = self.required(&fields, "to", Self::formed);
        let delivery = self.optional(&fields, "delivery", |this, node, at| {
            this.one_of(
                node,
                at,
                &[("durable", Delivery::Durable), ("live", Delivery::Live)],
            )
        });
        Some(Route {
            from: from?,
            to: to?,
            delivery: delivery?.unwrap_or_default(),
        })
    }
}

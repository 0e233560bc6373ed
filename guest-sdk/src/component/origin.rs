//! What stands behind the numbers of origins: asked of the agent once for each, and remembered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::bindings::exports::haar::local::handler::Delivery;
use super::bindings::haar::local::messaging;
use crate::message::{Message, Source};
use crate::text::Text;

/// Origins that are remembered; with one more, all are asked for again. An origin may get other
/// numbers in the life of an instance, so what is remembered must have an end.
const ORIGINS_MAX: usize = 4_096;

#[derive(Clone)]
struct Origin {
    inlet: Text,
    source: Arc<Source>,
    content_type: Text,
}

thread_local! {
    static ORIGINS: RefCell<BTreeMap<u32, Origin>> = const { RefCell::new(BTreeMap::new()) };
}

/// A message as the microservice sees it.
pub(super) fn message(delivery: Delivery) -> Message {
    let origin = origin(delivery.origin);
    Message {
        inlet: origin.inlet,
        source: origin.source,
        sequence: delivery.sequence,
        published_ms: delivery.published,
        content_type: origin.content_type,
        headers: delivery.headers,
        body: delivery.body,
        attempt: delivery.attempt,
    }
}

fn origin(number: u32) -> Origin {
    ORIGINS.with_borrow_mut(|origins| {
        if let Some(origin) = origins.get(&number) {
            return origin.clone();
        }
        if origins.len() >= ORIGINS_MAX {
            origins.clear();
        }
        let asked = messaging::origin_of(number).expect("a message that is handled has an origin");
        let origin = Origin {
            inlet: asked.inlet.into(),
            source: source(asked.source).into(),
            content_type: asked.content_type.into(),
        };
        origins.insert(number, origin.clone());
        origin
    })
}

/// A source, in this crate's own type.
pub(super) fn source(source: messaging::Source) -> Source {
    Source {
        site: source.site,
        node: source.node,
        application: source.application,
        microservice: source.microservice,
        outlet: source.outlet,
    }
}

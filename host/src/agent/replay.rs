//! A dead letter on its way back into the inbox that it came from, as far as there still is one.

use std::sync::Arc;

use haar_protocol::assignment::{Assignment, Microservice};
use haar_protocol::ids::{InvalidId, Name, PortName, RouteId};

use super::node::Node;
use crate::bus::message::{Delivery, Entry, Message, RouteCounters, next_origin};
use crate::bus::topics;
use crate::store::dead_letters::DeadLetter;

impl Node {
    /// Puts the message of a dead letter into the inbox of its microservice, as if it was delivered
    /// for the first time.
    ///
    /// # Errors
    /// Why it can't be delivered as things are now, for people.
    pub fn replay(&mut self, letter: DeadLetter) -> Result<(), String> {
        let gone = || format!("{} is not assigned to this node any more", letter.owner);
        let assignment = self.assignment.as_ref().ok_or_else(gone)?;
        let spec = self.wanted.get(&letter.owner).ok_or_else(gone)?;
        check(&letter, spec)?;
        let route = route(&letter, assignment).or_else(|| topic_route(&letter, assignment));
        let counters = route.and_then(|(route, peer)| self.registry.route_counters(route, peer));
        let counters = match counters {
            Some(counters) => counters,
            // Its route is gone: nothing shows what is counted here.
            None => Arc::new(RouteCounters::new(
                route_id(&letter, spec).map_err(|error| error.0)?,
            )),
        };
        let delivery = Delivery {
            entry: Arc::new(Entry {
                origin: next_origin(),
                inlet: letter.inlet,
                content_type: letter.content_type,
                message_bytes_max: spec.limits.message_size.0,
                expiry_ms: None,
                counters,
                history: None, // it was recorded when it came
            }),
            message: Arc::new(Message {
                source: Arc::new(letter.source),
                sequence: letter.sequence,
                published_ms: letter.published_ms,
                headers: letter.headers,
                body: letter.body,
            }),
            attempt: 1,
            place: None,
            taken_ms: None,
        };
        let inbox = self.registry.inbox(&spec.name, &spec.limits);
        if inbox.push_where_room(delivery) {
            Ok(())
        } else {
            Err("the inbox is full: replay it when fewer messages wait".to_owned())
        }
    }
}

/// Whether the inlet would take the message today.
fn check(letter: &DeadLetter, spec: &Microservice) -> Result<(), String> {
    let inlets = &mut spec.inlets.iter();
    let Some((_, media_type)) = inlets.find(|(inlet, _)| inlet.as_str() == letter.inlet) else {
        return Err(format!(
            "{} has no inlet `{}` any more",
            letter.owner, letter.inlet
        ));
    };
    if media_type.as_str() != letter.content_type {
        return Err(format!(
            "the inlet `{}` takes {media_type} now, and the letter is {}",
            letter.inlet, letter.content_type
        ));
    }
    let most = spec.limits.message_size;
    if letter.body.len() as u64 > most.0 {
        return Err(format!(
            "its body has {} bytes, and {} takes at most {most} now",
            letter.body.len(),
            letter.owner
        ));
    }
    Ok(())
}

/// The route that the message took, if it is there, with the name of the node at its other end.
fn route<'a>(letter: &DeadLetter, assignment: &'a Assignment) -> Option<(RouteId, &'a Name)> {
    let source = &letter.source;
    assignment.routes.iter().find_map(|route| {
        let from = &route.from.microservice;
        let is_it = route.to.node == assignment.node
            && route.to.microservice == letter.owner
            && route.to.port.as_str() == letter.inlet
            && from.application.as_str() == source.application
            && from.microservice.as_str() == source.microservice
            && route.from.port.as_str() == source.outlet;
        let peer = if route.from.node == assignment.node {
            &assignment.node_name
        } else {
            let peers = &mut assignment.peers.iter();
            &peers.find(|peer| peer.id == route.from.node)?.name
        };
        (is_it && peer.as_str() == source.node).then_some((route.id, peer))
    })
}

/// The same when the message came from a topic: with the name of the relay that has it.
fn topic_route<'a>(letter: &DeadLetter, assignment: &'a Assignment) -> Option<(RouteId, &'a Name)> {
    let found = assignment.topics.iter().find(|route| {
        let source = topics::source(assignment, route);
        route.topic.is_source()
            && route.microservice == letter.owner
            && route.port.as_str() == letter.inlet
            && source.microservice == letter.source.microservice
            && source.outlet == letter.source.outlet
    });
    found.map(|route| (route.id, &route.relay))
}

fn route_id(letter: &DeadLetter, spec: &Microservice) -> Result<RouteId, InvalidId> {
    let port = |microservice: &str, port: &str| {
        Ok::<_, InvalidId>(PortName {
            microservice: microservice.parse()?,
            port: port.parse()?,
        })
    };
    let source = &letter.source;
    let from = match source.microservice.strip_prefix("mqtt:") {
        Some(relay) => format!("mqtt:{}@{relay}", source.outlet),
        None => port(&source.microservice, &source.outlet)?.to_string(),
    };
    Ok(RouteId::of(
        &spec.name.application,
        &from,
        &port(letter.owner.microservice.as_str(), &letter.inlet)?,
        &letter.content_type.parse()?,
    ))
}

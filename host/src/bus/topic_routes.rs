//! How routes from and to topics enter the route table.

use std::sync::Arc;

use haar_protocol::assignment::{Microservice, TopicEnd, TopicRoute, TopicTarget};
use haar_protocol::manifest::Delivery;
use haar_protocol::mqtt::Retained;

use super::history::Direction;
use super::log::Listener;
use super::message::{Entry, RouteCounters};
use super::table::{Builder, DurableRoute, Target};
use super::topic_queue::TopicQueue;
use super::topics::{self, BrokerPlan, IncomingTopic, Intake, OutgoingTopic, Supply};

impl Builder<'_> {
    /// A route whose microservice is not here leads nowhere: the controller has no reason to send one.
    pub(super) fn add_topic(&mut self, route: &TopicRoute) {
        let microservices = &mut self.assignment.microservices.iter();
        let Some(microservice) = microservices.find(|one| one.name == route.microservice) else {
            return;
        };
        let counters = self.topic_counters(route);
        match &route.topic {
            TopicEnd::From(filter) => {
                let entry = self.topic_entry(route, microservice, &counters);
                let intake = self.intake(route, microservice, &entry, counters);
                let incoming = IncomingTopic {
                    filter: filter.clone(),
                    retained: route.retained.unwrap_or(Retained::EachConnection),
                    entry,
                    intake,
                };
                self.broker(route).incoming.push(incoming);
            }
            TopicEnd::To(target) => self.add_topic_target(route, target, counters),
        }
    }

    fn topic_counters(&mut self, route: &TopicRoute) -> Arc<RouteCounters> {
        let key = (route.id, route.relay.clone());
        self.used.insert(key.clone());
        let counters = self.registry.counters.entry(key).or_insert_with(|| {
            let topic = route.topic.to_string();
            Arc::new(RouteCounters::with_topic(route.id, topic))
        });
        Arc::clone(counters)
    }

    fn broker(&mut self, route: &TopicRoute) -> &mut BrokerPlan {
        let arrived = self.registry.logs.broker(&route.relay);
        let plan = self.brokers.entry(route.relay.clone());
        plan.or_insert_with(|| BrokerPlan {
            arrived,
            ..BrokerPlan::default()
        })
    }

    fn topic_entry(
        &self,
        route: &TopicRoute,
        microservice: &Microservice,
        counters: &Arc<RouteCounters>,
    ) -> Arc<Entry> {
        let name = &microservice.name;
        let history = self.registry.recorder(name, Direction::Inlet, &route.port);
        Arc::new(Entry {
            origin: counters.origin,
            inlet: route.port.to_string(),
            content_type: route.content_type.to_string(),
            message_bytes_max: microservice.limits.message_size.0,
            expiry_ms: route.backlog.expiry.map(|expiry| expiry.0),
            counters: Arc::clone(counters),
            history,
        })
    }

    fn intake(
        &mut self,
        route: &TopicRoute,
        microservice: &Microservice,
        entry: &Arc<Entry>,
        counters: Arc<RouteCounters>,
    ) -> Intake {
        let name = &microservice.name;
        let inbox = self.registry.inbox(name, &microservice.limits);
        if route.delivery == Delivery::Live {
            return Intake::Inbox {
                source: Arc::new(topics::source(self.assignment, route)),
                sequence: self.registry.topic_sequence(route.id),
                inbox,
            };
        }
        let Some(opened) = self.registry.logs.find_topic(self.assignment, route) else {
            return Intake::Nowhere;
        };
        let stream = self.registry.logs.stream(&opened.reader, Arc::clone(entry));
        self.streams.entry(name.clone()).or_default().push(stream);
        self.listen(&opened.log, Listener::Inbox(inbox));
        let arrived = Arc::clone(&self.broker(route).arrived);
        self.listen(&opened.log, Listener::Link(arrived)); // room for more
        Intake::Log(DurableRoute {
            counters,
            reader: opened.reader,
        })
    }

    fn add_topic_target(
        &mut self,
        route: &TopicRoute,
        target: &TopicTarget,
        counters: Arc<RouteCounters>,
    ) {
        let Some(supply) = self.supply(route, &counters) else {
            return;
        };
        let outgoing = OutgoingTopic {
            route: route.id.to_u64(),
            target: target.clone(),
            clears: route.retained == Some(Retained::ClearOnDelete),
            content_type: route.content_type.to_string(),
            priority: route.backlog.priority,
            counters,
            supply,
        };
        self.broker(route).outgoing.push(outgoing);
    }

    /// Where messages for the topic wait; nowhere when the log could not be opened.
    fn supply(&mut self, route: &TopicRoute, counters: &Arc<RouteCounters>) -> Option<Supply> {
        let arrived = Arc::clone(&self.broker(route).arrived);
        let key = (route.microservice.clone(), route.port.clone());
        let outlet = self.outlets.get_mut(&key)?;
        if route.delivery == Delivery::Live {
            let queues = &mut self.registry.topic_queues;
            let queue = queues
                .entry(route.id)
                .or_insert_with(|| Arc::new(TopicQueue::new(arrived)));
            outlet.targets.push(Target::Topic {
                queue: Arc::clone(queue),
                counters: Arc::clone(counters),
            });
            return Some(Supply::Queue(Arc::clone(queue)));
        }
        let Some(opened) = self.registry.logs.find_topic(self.assignment, route) else {
            outlet.lacks_log = true;
            return None;
        };
        outlet.log = Some(Arc::clone(&opened.log));
        outlet.durable.push(DurableRoute {
            counters: Arc::clone(counters),
            reader: Arc::clone(&opened.reader),
        });
        self.listen(&opened.log, Listener::Link(arrived));
        Some(Supply::Log {
            reader: opened.reader,
            expiry_ms: route.backlog.expiry.map(|expiry| expiry.0),
        })
    }
}

//! Which retained messages of a broker the routes of this node take: with each connection the broker
//! sends those of its topics again, and only what has changed meanwhile is news to a route. In memory
//! only: after a start of the agent each comes once more, and says that it is retained.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use haar_protocol::mqtt::{Retained, TopicFilter};

use crate::bus::topics::{BrokerPlan, IncomingTopic};

/// Topics of which the last message is known, each for each of its routes, at most. Retained messages
/// of others come with each connection.
const TOPICS_MAX: usize = 4_096;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct States {
    hasher: RandomState,
    /// The last message of each topic that retains one, for each route, as hashes under a random key.
    last: HashMap<u64, HashMap<u64, u64>>,
    /// Routes that take what is retained with every connection or once.
    receivers: HashSet<u64>,
    /// Those that have not been subscribed for yet.
    fresh: HashSet<u64>,
    /// Those that were, on this connection.
    due: HashSet<u64>,
    /// Those that were on an earlier one: the rest of what the broker retains for them is in its
    /// session, and comes on this one.
    owed: HashSet<u64>,
}

impl States {
    /// The routes are these now. What a route that is gone has had says nothing about one that comes
    /// in its place.
    pub(super) fn follow(&mut self, plan: &BrokerPlan) {
        let receivers = plan.incoming.iter();
        let receivers: HashSet<u64> = receivers
            .filter(|route| route.wants_retained())
            .map(IncomingTopic::number)
            .collect();
        self.fresh.extend(receivers.difference(&self.receivers));
        for some in [&mut self.fresh, &mut self.due, &mut self.owed] {
            some.retain(|route| receivers.contains(route));
        }
        self.last.retain(|route, _| receivers.contains(route));
        self.receivers = receivers;
    }

    /// The broker has begun a session.
    pub(super) fn began(&mut self) {
        self.fresh.extend(&self.receivers);
    }

    /// The broker has taken a subscription: it sends what it retains from now on. The session asks for
    /// that when the broker has sent what it had kept: then nothing is owed, unless something still
    /// waits, and more behind it.
    pub(super) fn subscribed(&mut self, plan: &BrokerPlan, filter: &TopicFilter, waits: bool) {
        let routes = plan.incoming.iter();
        for route in routes.filter(|route| &route.filter == filter) {
            self.due.extend(self.fresh.take(&route.number()));
            if !waits {
                self.owed.remove(&route.number());
            }
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.owed.extend(self.due.drain());
    }

    /// Notes a message. True when it is news to the route: it was published now, or the broker
    /// retains it, the route wants that, and it differs from the last one that was noted of its topic.
    pub(super) fn is_news(
        &mut self,
        route: &IncomingTopic,
        topic: &str,
        is_retained: bool,
        payload: &[u8],
    ) -> bool {
        let number = route.number();
        let is_wanted = match route.retained {
            Retained::EachConnection => true,
            Retained::First => {
                let mut all = [&self.fresh, &self.due, &self.owed].into_iter();
                all.any(|some| some.contains(&number))
            }
            Retained::None | Retained::ClearOnDelete => false,
        };
        if is_retained && !is_wanted {
            return false;
        }
        let message = self.hasher.hash_one(payload);
        let topic = self.hasher.hash_one(topic);
        if let Some(last) = self
            .last
            .get_mut(&number)
            .and_then(|route| route.get_mut(&topic))
        {
            return std::mem::replace(last, message) != message || !is_retained;
        }
        let topics: usize = self.last.values().map(HashMap::len).sum();
        if is_retained && topics < TOPICS_MAX {
            let last = self.last.entry(number).or_default();
            last.insert(topic, message);
        }
        true
    }

    /// A route has not kept the last message of a topic.
    pub(super) fn forget(&mut self, route: &IncomingTopic, topic: &str) {
        let topic = self.hasher.hash_one(topic);
        if let Entry::Occupied(mut last) = self.last.entry(route.number()) {
            last.get_mut().remove(&topic);
        }
    }

    /// No route has kept it.
    pub(super) fn forget_of_all(&mut self, topic: &str) {
        let topic = self.hasher.hash_one(topic);
        for last in self.last.values_mut() {
            last.remove(&topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use haar_protocol::ids::RouteId;

    use super::*;
    use crate::bus::message::{Entry, RouteCounters};
    use crate::bus::topics::Intake;

    fn route(number: u8, retained: Retained) -> IncomingTopic {
        let id = RouteId::try_from(format!("{number:016x}")).unwrap();
        IncomingTopic {
            filter: "plant/#".parse().unwrap(),
            retained,
            entry: Arc::new(Entry {
                origin: 0,
                inlet: "in".to_owned(),
                content_type: "text/plain".to_owned(),
                message_bytes_max: 1_024,
                expiry_ms: None,
                counters: Arc::new(RouteCounters::new(id)),
                history: None,
            }),
            intake: Intake::Nowhere,
        }
    }

    fn plan(routes: &[IncomingTopic]) -> BrokerPlan {
        BrokerPlan {
            incoming: routes.to_vec(),
            ..BrokerPlan::default()
        }
    }

    #[test]
    fn a_retained_message_is_news_unless_it_was_the_last_of_its_topic() {
        let each = route(1, Retained::EachConnection);
        let mut states = States::default();
        states.follow(&plan(std::slice::from_ref(&each)));
        assert!(states.is_news(&each, "mode", true, b"on"));
        assert!(!states.is_news(&each, "mode", true, b"on"));
        assert!(states.is_news(&each, "mode", true, b"off"));
        assert!(
            states.is_news(&each, "mode", false, b"off"),
            "it was published"
        );
        assert!(states.is_news(&each, "mode", false, b"on"));
        assert!(!states.is_news(&each, "mode", true, b"on"));
        assert!(states.is_news(&each, "other", true, b"on"));
        states.forget(&each, "mode");
        assert!(states.is_news(&each, "mode", true, b"on"));
        states.forget_of_all("mode");
        assert!(states.is_news(&each, "mode", true, b"on"));
    }

    #[test]
    fn routes_on_one_filter_take_what_is_retained_each_as_it_says() {
        let [none, first, each] = [
            route(1, Retained::None),
            route(2, Retained::First),
            route(3, Retained::EachConnection),
        ];
        let all = [none, first, each];
        let now = plan(&all);
        let mut states = States::default();
        states.follow(&now);
        let news = |states: &mut States, payload: &[u8]| {
            let routes = all.iter();
            let news = routes.map(|route| states.is_news(route, "mode", true, payload));
            news.collect::<Vec<_>>()
        };
        states.subscribed(&now, &all[0].filter, false);
        assert_eq!(news(&mut states, b"on"), [false, true, true]);
        states.disconnected();
        states.subscribed(&now, &all[0].filter, false);
        assert_eq!(news(&mut states, b"off"), [false, false, true]);
        states.disconnected();
        states.began();
        assert_eq!(news(&mut states, b"auto"), [false, true, true]);
        for route in &all {
            assert!(states.is_news(route, "mode", false, b"on"));
        }
    }

    #[test]
    fn what_is_retained_comes_to_its_end_on_later_connections() {
        let first = route(1, Retained::First);
        let now = plan(std::slice::from_ref(&first));
        let mut states = States::default();
        states.follow(&now);
        states.began();
        states.subscribed(&now, &first.filter, false);
        assert!(states.is_news(&first, "1", true, b"on"));
        // The broker has more for it, and the session goes on.
        for (topic, waits) in [("2", true), ("3", false)] {
            states.disconnected();
            assert!(states.is_news(&first, topic, true, b"on"), "{topic}");
            states.subscribed(&now, &first.filter, waits);
            assert_eq!(states.is_news(&first, "4", true, topic.as_bytes()), waits);
        }
        states.disconnected();
        assert!(!states.is_news(&first, "5", true, b"on"), "it has had all");
        // One that comes back has had nothing.
        states.follow(&plan(&[]));
        states.follow(&now);
        assert!(states.is_news(&first, "5", true, b"on"));
    }

    #[test]
    fn a_route_that_joins_others_on_their_filter_gets_the_present_state() {
        let routes = [
            route(1, Retained::EachConnection),
            route(2, Retained::EachConnection),
        ];
        let [old, new] = &routes;
        let mut states = States::default();
        states.follow(&plan(&routes[..1]));
        assert!(states.is_news(old, "mode", true, b"on"));
        states.follow(&plan(&routes));
        assert!(!states.is_news(old, "mode", true, b"on"));
        assert!(states.is_news(new, "mode", true, b"on"));
        // One that comes back is new.
        states.follow(&plan(&routes[..1]));
        states.follow(&plan(&routes));
        assert!(states.is_news(new, "mode", true, b"on"));
    }

    #[test]
    fn topics_beyond_a_limit_are_not_remembered() {
        let each = route(1, Retained::EachConnection);
        let mut states = States::default();
        for number in 0..=TOPICS_MAX {
            assert!(states.is_news(&each, &number.to_string(), true, b"on"));
        }
        assert!(!states.is_news(&each, "0", true, b"on"));
        assert!(states.is_news(&each, &TOPICS_MAX.to_string(), true, b"on"));
    }
}

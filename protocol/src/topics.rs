//! The MQTT topics of a site. Sender and recipient both stand in the topic, so that a relay's
//! rules per node are constant:
//!
//! ```text
//! haar/SITE/NODE/ctl/assignment   site to node, retained, signed
//! haar/SITE/NODE/ctl/request      site to node, signed
//! haar/SITE/NODE/up/status        node to site, retained, signed
//! haar/SITE/NODE/up/alive         node to site, retained: "online", and the will "offline"
//! haar/SITE/NODE/up/log           node to site
//! haar/SITE/NODE/up/response      node to site, signed
//! haar/SITE/NODE/in/FROM/link     node FROM to NODE: sealed frames of their link
//! ```

use crate::ids::{NodeId, SiteId};

/// A topic that this site's processes know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// The assignment of a node.
    Assignment(NodeId),
    /// Requests to a node.
    Request(NodeId),
    /// The status of a node.
    Status(NodeId),
    /// Whether a node is connected.
    Alive(NodeId),
    /// Log lines of a node.
    Log(NodeId),
    /// Answers of a node to requests.
    Response(NodeId),
    /// Sealed frames of a link from one node to another.
    Link {
        /// The sending node.
        from: NodeId,
        /// The receiving node.
        to: NodeId,
    },
}

impl Topic {
    /// The topic's text in `site`.
    pub fn text(&self, site: &SiteId) -> String {
        match self {
            Topic::Assignment(node) => format!("haar/{site}/{node}/ctl/assignment"),
            Topic::Request(node) => format!("haar/{site}/{node}/ctl/request"),
            Topic::Status(node) => format!("haar/{site}/{node}/up/status"),
            Topic::Alive(node) => format!("haar/{site}/{node}/up/alive"),
            Topic::Log(node) => format!("haar/{site}/{node}/up/log"),
            Topic::Response(node) => format!("haar/{site}/{node}/up/response"),
            Topic::Link { from, to } => format!("haar/{site}/{to}/in/{from}/link"),
        }
    }

    /// The topic that `text` is in `site`, or none.
    pub fn parse(site: &SiteId, text: &str) -> Option<Topic> {
        let rest = text
            .strip_prefix("haar/")?
            .strip_prefix(site.as_str())?
            .strip_prefix('/')?;
        let mut levels = rest.split('/');
        let node: NodeId = levels.next()?.parse().ok()?;
        let topic = match (levels.next()?, levels.next()?, levels.next()) {
            ("ctl", "assignment", None) => Topic::Assignment(node),
            ("ctl", "request", None) => Topic::Request(node),
            ("up", "status", None) => Topic::Status(node),
            ("up", "alive", None) => Topic::Alive(node),
            ("up", "log", None) => Topic::Log(node),
            ("up", "response", None) => Topic::Response(node),
            ("in", from, Some("link")) => Topic::Link {
                from: from.parse().ok()?,
                to: node,
            },
            _ => return None,
        };
        levels.next().is_none().then_some(topic)
    }
}

/// What a node subscribes to: what the site and other nodes send to it.
pub fn node_subscriptions(site: &SiteId, node: &NodeId) -> Vec<String> {
    vec![
        format!("haar/{site}/{node}/ctl/#"),
        format!("haar/{site}/{node}/in/#"),
    ]
}

/// What a node subscribes to at a relay that carries messages between nodes only.
pub fn link_subscriptions(site: &SiteId, node: &NodeId) -> Vec<String> {
    vec![format!("haar/{site}/{node}/in/#")]
}

/// What a node publishes to, as topic filters: for the rules of brokers that are not ours.
pub fn node_publications(site: &SiteId, node: &NodeId) -> Vec<String> {
    vec![
        format!("haar/{site}/{node}/up/#"),
        format!("haar/{site}/+/in/{node}/#"),
    ]
}

/// What the site publishes to, likewise.
pub fn site_publications(site: &SiteId) -> Vec<String> {
    vec![format!("haar/{site}/+/ctl/#")]
}

/// What the site subscribes to: what every node reports.
pub fn site_subscriptions(site: &SiteId) -> Vec<String> {
    vec![format!("haar/{site}/+/up/#")]
}

/// True when a node may publish to `topic`: what it reports, and what it sends to other nodes.
pub fn node_may_publish(site: &SiteId, node: &NodeId, topic: &str) -> bool {
    match Topic::parse(site, topic) {
        Some(Topic::Status(of) | Topic::Alive(of) | Topic::Log(of) | Topic::Response(of)) => {
            &of == node
        }
        Some(Topic::Link { from, .. }) => &from == node,
        Some(Topic::Assignment(_) | Topic::Request(_)) | None => false,
    }
}

/// True when a node may subscribe to `filter`: below its own `ctl` and `in`, nothing wider.
pub fn node_may_subscribe(site: &SiteId, node: &NodeId, filter: &str) -> bool {
    ["ctl", "in"].iter().any(|part| {
        filter
            .strip_prefix(&format!("haar/{site}/{node}/{part}/"))
            .is_some_and(is_filter)
    })
}

/// True when `text` is well formed as the end of a topic filter: wildcards stand alone in their
/// level, `#` stands last (MQTT 5.0 section 4.7.1), and there is no control character in it.
fn is_filter(text: &str) -> bool {
    let mut levels = text.split('/').peekable();
    let mut valid = !text.is_empty() && !text.chars().any(char::is_control);
    while let Some(level) = levels.next() {
        valid &= match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !level.contains(['+', '#']),
        };
    }
    valid
}

/// True when the site may publish to `topic`: it writes `ctl`, and has no right on `in`, so that
/// it can't forge data.
pub fn site_may_publish(site: &SiteId, topic: &str) -> bool {
    matches!(
        Topic::parse(site, topic),
        Some(Topic::Assignment(_) | Topic::Request(_))
    )
}

/// True when the site may subscribe to `filter`: anything below a node's `up`.
pub fn site_may_subscribe(site: &SiteId, filter: &str) -> bool {
    let below = || {
        let (node, rest) = filter
            .strip_prefix(&format!("haar/{site}/"))?
            .split_once('/')?;
        let is_node = node == "+" || node.parse::<NodeId>().is_ok();
        Some(is_node && rest.strip_prefix("up/").is_some_and(is_filter))
    };
    below().unwrap_or(false)
}

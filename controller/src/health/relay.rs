//! The health of a relay.

use haar_protocol::rest::{Cause, Health, HealthState};

/// What is known of a relay.
#[derive(Debug, Clone, Default)]
pub(crate) struct RelayFacts {
    /// Whether the controller is connected to it; none where it has nothing to do.
    pub(crate) controller_connected: Option<bool>,
    /// Nodes that are to attach to it.
    pub(crate) nodes: u64,
    /// Those that are connected to it.
    pub(crate) nodes_connected: u64,
    /// Those that are heard, and are not connected to it.
    pub(crate) nodes_away: u64,
    /// Those of which this is not known now.
    pub(crate) nodes_unknown: u64,
    /// The health of the node that runs it, when one does.
    pub(crate) host: Option<Health>,
    /// Why it does not run, as its host says.
    pub(crate) does_not_run: Option<String>,
    /// What a person must look after.
    pub(crate) certificate: Option<String>,
    /// Why the controller is not connected to it.
    pub(crate) controller_reason: Option<String>,
    /// What nodes say is wrong with it, or what routes from and to its topics do less than their
    /// manifests say.
    pub(crate) trouble: Option<String>,
}

/// The health of a relay.
pub(crate) fn relay(facts: &RelayFacts) -> Health {
    if let Some(reason) = &facts.does_not_run {
        return Health::because(HealthState::Failed, Cause::Relay, reason.clone());
    }
    if facts.controller_connected == Some(false) {
        let why = facts.controller_reason.as_ref();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        let reason = format!("the controller is not connected to it{why}");
        return Health::because(HealthState::Failed, Cause::Relay, reason);
    }
    if let Some(host) = &facts.host
        && host.state == HealthState::Unknown
    {
        return host.clone();
    }
    if let Some(certificate) = &facts.certificate {
        return Health::because(
            HealthState::Degraded,
            Cause::Certificate,
            certificate.clone(),
        );
    }
    let RelayFacts {
        nodes,
        nodes_connected,
        nodes_away: away,
        ..
    } = *facts;
    if away > 0 {
        let state = match nodes_connected {
            0 if facts.controller_connected.is_none() => HealthState::Failed,
            _ => HealthState::Degraded,
        };
        let why = facts.trouble.as_ref();
        let why = why.map_or_else(String::new, |why| format!("; {why}"));
        let reason =
            format!("{away} of its {nodes} nodes are heard of, and are not connected to it{why}");
        return Health::because(state, Cause::Parts, reason);
    }
    if let Some(trouble) = &facts.trouble {
        return Health::because(HealthState::Degraded, Cause::Parts, trouble.clone());
    }
    let is_heard_of = facts.controller_connected.is_some() || nodes_connected > 0;
    if is_heard_of || facts.host.as_ref().is_some_and(Health::is_healthy) {
        return Health::new(HealthState::Healthy);
    }
    let reason = match nodes {
        0 => "no node attaches to it".to_owned(),
        nodes => format!("none of its {nodes} nodes has been heard of lately"),
    };
    Health::because(HealthState::Unknown, Cause::NotReported, reason)
}

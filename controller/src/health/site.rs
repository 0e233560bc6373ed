//! The health of a site: of its nodes, applications and relays.

use haar_protocol::ids::Name;
use haar_protocol::rest::{Application, Cause, Health, HealthCount, HealthState, Node, SiteHealth};

/// How a site does as a whole. `relays` are the states of its relays.
pub(crate) fn site(
    name: &Name,
    nodes: &[Node],
    applications: &[Application],
    relays: HealthCount,
    now_ms: u64,
) -> SiteHealth {
    let nodes: HealthCount = nodes.iter().map(|node| node.health.state).collect();
    let mut instances = HealthCount::default();
    for application in applications {
        instances.merge(&application.count);
    }
    let applications: HealthCount = applications.iter().map(|one| one.health.state).collect();
    let parts = [
        ("nodes", &nodes),
        ("applications", &applications),
        ("relays", &relays),
    ];
    let wrong: Vec<String> = parts
        .iter()
        .filter(|(_, count)| count.healthy < count.all())
        .map(|(what, count)| format!("{} of {} {what} are healthy", count.healthy, count.all()))
        .collect();
    let is_only_on_its_way = parts.iter().all(|(_, count)| {
        let HealthCount {
            degraded,
            failed,
            unknown,
            ..
        } = **count;
        degraded + failed + unknown == 0
    });
    let health = match wrong.is_empty() {
        true => Health::new(HealthState::Healthy),
        false => {
            let state = match is_only_on_its_way {
                true => HealthState::Progressing,
                false => HealthState::Degraded,
            };
            Health {
                hint: Some(
                    "see `haar get nodes`, `haar get applications` and `haar get relays`".into(),
                ),
                ..Health::because(state, Cause::Parts, wrong.join(", "))
            }
        }
    };
    SiteHealth {
        name: name.clone(),
        health,
        nodes,
        applications,
        instances,
        relays,
        time_ms: now_ms,
    }
}

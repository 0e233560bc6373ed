//! How something of a site does, as far as its controller knows, and since when. One place of the
//! controller computes it; commands print it and decide nothing by themselves.

use serde::{Deserialize, Serialize};

use crate::ids::Name;

/// The health of a node, an instance, an application, a relay or a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// What can be said now.
    pub state: HealthState,
    /// What it is about, for programs; none when everything is as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Since when it is so: milliseconds since the Unix epoch by the controller's clock. For
    /// `unknown`, when something was last known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// How old the oldest report is that this rests on, in milliseconds, when the answer was made;
    /// none when it rests on no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

impl Health {
    /// In this state, for no further reason.
    pub fn new(state: HealthState) -> Self {
        Self {
            state,
            cause: None,
            reason: None,
            hint: None,
            since_ms: None,
            age_ms: None,
        }
    }

    /// In this state for a reason.
    pub fn because(state: HealthState, cause: Cause, reason: impl Into<String>) -> Self {
        Self {
            cause: Some(cause),
            reason: Some(reason.into()),
            ..Self::new(state)
        }
    }

    /// True when it is as it should be.
    pub fn is_healthy(&self) -> bool {
        self.state == HealthState::Healthy
    }
}

/// What a controller of an earlier release says.
impl Default for Health {
    fn default() -> Self {
        Self::because(
            HealthState::Unknown,
            Cause::NotComputed,
            "the controller is of an earlier release, which does not report it",
        )
    }
}

/// What can be said of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// It is as it should be, as far as a report tells that is not old.
    Healthy,
    /// It is on its way to what it should be, and needs nobody.
    Progressing,
    /// Some of it is as it should be.
    Degraded,
    /// It is not as it should be, and does not become so by itself soon.
    Failed,
    /// What was last known of it is too old to say anything.
    Unknown,
}

impl HealthState {
    /// What is higher is worse, and shown first.
    pub fn severity(self) -> u8 {
        match self {
            HealthState::Healthy => 0,
            HealthState::Progressing => 1,
            HealthState::Degraded => 2,
            HealthState::Unknown => 3,
            HealthState::Failed => 4,
        }
    }
}

impl std::fmt::Display for HealthState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            HealthState::Healthy => "healthy",
            HealthState::Progressing => "progressing",
            HealthState::Degraded => "degraded",
            HealthState::Failed => "failed",
            HealthState::Unknown => "unknown",
        })
    }
}

/// Why something is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// No relay has a connection to the node.
    NotReached,
    /// The site's relay refuses the node.
    RelayRefuses,
    /// The node's clock is wrong.
    Clock,
    /// The node is connected and reports nothing.
    Silent,
    /// The node has not reported since it joined, or nothing of this instance.
    NotReported,
    /// The node has not taken its newest assignment yet.
    AssignmentPending,
    /// No newer assignment can be made for the node: it would be too large, or numbers are used up.
    Unassigned,
    /// The node refuses its newest assignment.
    AssignmentRefused,
    /// The node refuses the change of the instance, which goes on as before.
    ChangeRefused,
    /// The node's last status had no room for the instance.
    NoRoomInStatus,
    /// The instance runs another module than it should.
    OtherModule,
    /// The instance is being prepared.
    Preparing,
    /// The instance has not answered yet to other values of its configuration.
    Configuring,
    /// The instance failed, and starts again after a pause.
    BackOff,
    /// The instance is not run: its module, or something that it is granted, was refused.
    Refused,
    /// The instance stops, or should.
    Stopping,
    /// No node has room for it, or none matches.
    Unplaced,
    /// Two agents run with the node's identity.
    IdentityInUse,
    /// Statuses of the node are not believed.
    StatusRefused,
    /// The agent can't use its database.
    Store,
    /// The disk with the agent's data is full.
    DiskFull,
    /// The relay does not run, or the controller is not connected to it.
    Relay,
    /// A certificate ends soon.
    Certificate,
    /// Parts of it are not healthy.
    Parts,
    /// The controller does not compute it.
    NotComputed,
    /// One that this release does not know.
    #[serde(other)]
    Other,
}

impl Cause {
    /// True when nothing changes before somebody applies something else.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Cause::AssignmentRefused | Cause::ChangeRefused | Cause::Refused
        )
    }
}

/// Instances of a microservice that have no place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unplaced {
    /// The microservice.
    pub microservice: Name,
    /// The node that has no room, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// How many instances it is about.
    pub instances: u32,
    /// Why, for programs: such as `over_budget`, `no_node`.
    pub code: String,
    /// Why, for people.
    pub reason: String,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Since when: milliseconds since the Unix epoch by the controller's clock.
    pub since_ms: u64,
}

/// What the site has noticed of a node, beside what the node reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Observation {
    /// For programs: `relay_refused`, `identity_in_use`, `status_refused` or `unassigned`.
    pub kind: String,
    /// Which one of its kind, for programs: such as `clock` for a node that is refused for its clock.
    pub code: String,
    /// For people.
    pub message: String,
    /// When it was noticed first: milliseconds since the Unix epoch by the controller's clock.
    pub since_ms: u64,
    /// When it was noticed last, likewise.
    pub last_ms: u64,
}

/// How a site does as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SiteHealth {
    /// The site's name.
    pub name: Name,
    /// Its health.
    pub health: Health,
    /// Its nodes by their health.
    pub nodes: HealthCount,
    /// Its applications by their health.
    pub applications: HealthCount,
    /// Its instances by their health; those without a place count as failed.
    pub instances: HealthCount,
    /// Its relays by their health.
    pub relays: HealthCount,
    /// When this was computed: milliseconds since the Unix epoch by the controller's clock.
    pub time_ms: u64,
}

/// How many of something are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct HealthCount {
    /// How many are healthy.
    pub healthy: u32,
    /// How many are progressing.
    pub progressing: u32,
    /// How many are degraded.
    pub degraded: u32,
    /// How many have failed.
    pub failed: u32,
    /// Of how many nothing is known now.
    pub unknown: u32,
}

impl HealthCount {
    /// Counts `more` that are in `state`.
    pub fn add(&mut self, state: HealthState, more: u32) {
        let count = match state {
            HealthState::Healthy => &mut self.healthy,
            HealthState::Progressing => &mut self.progressing,
            HealthState::Degraded => &mut self.degraded,
            HealthState::Failed => &mut self.failed,
            HealthState::Unknown => &mut self.unknown,
        };
        *count = count.saturating_add(more);
    }

    /// Counts what another one has counted.
    pub fn merge(&mut self, other: &HealthCount) {
        for (state, more) in [
            (HealthState::Healthy, other.healthy),
            (HealthState::Progressing, other.progressing),
            (HealthState::Degraded, other.degraded),
            (HealthState::Failed, other.failed),
            (HealthState::Unknown, other.unknown),
        ] {
            self.add(state, more);
        }
    }

    /// How many there are.
    pub fn all(&self) -> u32 {
        [
            self.healthy,
            self.progressing,
            self.degraded,
            self.failed,
            self.unknown,
        ]
        .into_iter()
        .fold(0, u32::saturating_add)
    }
}

impl FromIterator<HealthState> for HealthCount {
    fn from_iter<T: IntoIterator<Item = HealthState>>(states: T) -> Self {
        let mut count = Self::default();
        for state in states {
            count.add(state, 1);
        }
        count
    }
}

//! Decides which connections a listener keeps while it can't keep all: those that have proved who
//! they are, and of the others, the strangers, those that got furthest. The relay and the
//! controller's API each have one. It closes nothing itself: whoever runs a connection waits for
//! [`Place::lost`] beside it.
//!
//! ```text
//!  enter ──► silent ──► greeting ──► encrypted ──► admitted
//!              └────────────┴────────────┴─► lost to a newcomer: the oldest of the least advanced
//! ```
//! A flood can't shut the door: a newcomer takes the place of a stranger that has said less, and an
//! honest client is past `silent` within the time that its first bytes need. Addresses from which
//! somebody was admitted lately go before all others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// How many connections a listener keeps.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    /// Connections that have proved who they are.
    pub admitted_max: usize,
    /// The same from one address.
    pub admitted_per_address_max: usize,
    /// Connections that have not.
    pub strangers_max: usize,
    /// The same from one address.
    pub strangers_per_address_max: usize,
}

/// How far a connection got. Strangers with less lose their place first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// It was accepted and has sent nothing of use.
    Silent,
    /// It has sent a whole TLS greeting, or the first bytes of a plain connection.
    Greeting,
    /// Its TLS handshake is complete.
    Encrypted,
    /// It has proved who it is, and never loses its place.
    Admitted,
}

/// Why a connection was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The listener has all the admitted connections that it may have.
    #[error("the listener has {0} admitted connections, its limit")]
    Admitted(usize),
    /// The address has.
    #[error("the address has {0} admitted connections, its limit")]
    Address(usize),
    /// Every place for strangers belongs to an address that is known, and this one is not.
    #[error("addresses that were admitted lately fill all {0} places for strangers")]
    Known(usize),
}

/// The network that counts as one client: an IPv4 address, or the /64 that a provider gives to one
/// IPv6 customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Source(address.into()),
            IpAddr::V6(address) => {
                let [one, two, three, four, ..] = address.segments();
                Source(Ipv6Addr::new(one, two, three, four, 0, 0, 0, 0).into())
            }
        }
    }
}

/// The connections of one listener.
#[derive(Debug)]
pub struct Door {
    limits: DoorLimits,
    /// The listener, each connection and whoever admits them take it for an instant.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next connection; later is larger.
    next: u64,
    connections: HashMap<u64, Connection>,
    /// The strangers among them. The first gives way first.
    ranks: BTreeSet<Rank>,
    /// The same by peer, for those who know a connection by its address only.
    by_peer: HashMap<SocketAddr, u64>,
    counts: HashMap<Source, Counts>,
    admitted: usize,
    known: Known,
}

/// The order in which strangers give way: unknown sources first, then those that got least far,
/// then those that came first.
type Rank = (bool, Progress, u64);

#[derive(Debug)]
struct Connection {
    peer: SocketAddr,
    source: Source,
    is_known: bool,
    progress: Progress,
    lost: CancellationToken,
}

impl Connection {
    fn rank(&self, number: u64) -> Rank {
        (self.is_known, self.progress, number)
    }
}

#[derive(Debug, Default)]
struct Counts {
    strangers: usize,
    admitted: usize,
}

/// The sources that were admitted last, with the time as a counter. At most as many as may be
/// admitted at one time.
#[derive(Debug, Default)]
struct Known {
    by_source: HashMap<Source, u64>,
    by_age: BTreeMap<u64, Source>,
}

/// A connection's place; dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    door: Arc<Door>,
    number: u64,
    lost: CancellationToken,
}

impl Door {
    /// A door that nobody has entered.
    pub fn new(limits: DoorLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// A place for the connection of `peer`. Another stranger may lose its own for it.
    ///
    /// # Errors
    /// When nobody gives way: close the connection then.
    pub fn enter(self: &Arc<Self>, peer: SocketAddr) -> Result<Place, Full> {
        let source = Source::from(peer.ip());
        let mut state = self.lock();
        let is_known = state.known.by_source.contains_key(&source);
        state.make_room(&self.limits, source, is_known)?;
        let lost = CancellationToken::new();
        let number = state.insert(Connection {
            peer,
            source,
            is_known,
            progress: Progress::Silent,
            lost: lost.clone(),
        });
        Ok(Place {
            door: Arc::clone(self),
            number,
            lost,
        })
    }

    /// Notes that the connection of `peer` has proved who it is. False when it lost its place
    /// before, or there are too many: refuse it then.
    pub fn admit(&self, peer: SocketAddr) -> bool {
        let mut state = self.lock();
        let number = state.by_peer.get(&peer).copied();
        number.is_some_and(|number| state.admit(&self.limits, number))
    }

    /// Takes the place of the stranger that got least far, for a listener that has no file
    /// descriptors left. False when there is none.
    pub fn drop_one_stranger(&self) -> bool {
        let mut state = self.lock();
        let victim = state.ranks.first().map(|(_, _, number)| *number);
        victim.is_some_and(|number| state.evict(number))
    }

    /// How many connections have proved who they are, and how many have not.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.admitted, state.ranks.len())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make_room(
        &mut self,
        limits: &DoorLimits,
        source: Source,
        is_known: bool,
    ) -> Result<(), Full> {
        if self.admitted >= limits.admitted_max {
            return Err(Full::Admitted(limits.admitted_max));
        }
        let (strangers, admitted) = self
            .counts
            .get(&source)
            .map_or((0, 0), |counts| (counts.strangers, counts.admitted));
        if admitted >= limits.admitted_per_address_max {
            return Err(Full::Address(limits.admitted_per_address_max));
        }
        if strangers >= limits.strangers_per_address_max {
            if let Some(number) = self.least_of(source) {
                self.evict(number);
            }
        } else if self.ranks.len() >= limits.strangers_max {
            match self.ranks.first().copied() {
                Some((other_is_known, _, number)) if is_known || !other_is_known => {
                    self.evict(number);
                }
                _ => return Err(Full::Known(limits.strangers_max)),
            }
        }
        Ok(())
    }

    /// The stranger from `source` that gives way first.
    fn least_of(&self, source: Source) -> Option<u64> {
        let numbers = self.ranks.iter().map(|(_, _, number)| number);
        numbers
            .copied()
            .find(|number| self.connections.get(number).map(|one| one.source) == Some(source))
    }

    fn insert(&mut self, connection: Connection) -> u64 {
        let number = self.next;
        self.next += 1;
        self.ranks.insert(connection.rank(number));
        self.counts.entry(connection.source).or_default().strangers += 1;
        self.by_peer.insert(connection.peer, number);
        self.connections.insert(number, connection);
        number
    }

    fn evict(&mut self, number: u64) -> bool {
        let connection = self.remove(number);
        if let Some(connection) = &connection {
            connection.lost.cancel();
        }
        connection.is_some()
    }

    fn remove(&mut self, number: u64) -> Option<Connection> {
        let connection = self.connections.remove(&number)?;
        if self.by_peer.get(&connection.peer) == Some(&number) {
            self.by_peer.remove(&connection.peer);
        }
        let is_stranger = self.ranks.remove(&connection.rank(number));
        if !is_stranger {
            self.admitted -= 1;
        }
        if let Some(counts) = self.counts.get_mut(&connection.source) {
            match is_stranger {
                true => counts.strangers -= 1,
                false => counts.admitted -= 1,
            }
            if counts.admitted + counts.strangers == 0 {
                self.counts.remove(&connection.source);
            }
        }
        Some(connection)
    }

    fn advance(&mut self, number: u64, progress: Progress) {
        if let Some(connection) = self.connections.get_mut(&number)
            && connection.progress < progress
        {
            self.ranks.remove(&connection.rank(number));
            connection.progress = progress;
            self.ranks.insert(connection.rank(number));
        }
    }

    fn admit(&mut self, limits: &DoorLimits, number: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&number) else {
            return false;
        };
        if connection.progress == Progress::Admitted {
            return true;
        }
        let source = connection.source;
        let counts = self.counts.entry(source).or_default();
        if self.admitted >= limits.admitted_max
            || counts.admitted >= limits.admitted_per_address_max
        {
            return false;
        }
        self.ranks.remove(&connection.rank(number));
        connection.progress = Progress::Admitted;
        counts.strangers -= 1;
        counts.admitted += 1;
        self.admitted += 1;
        self.known.note(source, limits.admitted_max, self.next);
        self.next += 1;
        true
    }
}

impl Known {
    fn note(&mut self, source: Source, max: usize, now: u64) {
        if let Some(before) = self.by_source.insert(source, now) {
            self.by_age.remove(&before);
        }
        self.by_age.insert(now, source);
        while self.by_source.len() > max {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                return;
            };
            self.by_source.remove(&oldest);
        }
    }
}

impl Place {
    /// Notes how far a stranger got; what admits it is [`Place::admit`].
    pub fn advance(&self, progress: Progress) {
        if progress < Progress::Admitted {
            self.door.lock().advance(self.number, progress);
        }
    }

    /// Notes that the connection has proved who it is. False when it lost its place before, or
    /// there are too many: refuse it then.
    pub fn admit(&self) -> bool {
        self.door.lock().admit(&self.door.limits, self.number)
    }

    /// True once the connection has proved who it is.
    pub fn is_admitted(&self) -> bool {
        let state = self.door.lock();
        let connection = state.connections.get(&self.number);
        connection.is_some_and(|one| one.progress == Progress::Admitted)
    }

    /// Waits until a newcomer takes the place: close the connection then. Never, once admitted.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests;

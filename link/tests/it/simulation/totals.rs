//! What a simulation counts: one in which nothing goes wrong proves nothing.

/// How often things happened.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) published: u64,
    pub(super) arrived: u64,
    pub(super) dropped_by_policy: u64,
    pub(super) expired: u64,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) reordered: u64,
    pub(super) crashes_of_the_sender: u64,
    pub(super) crashes_of_the_receiver: u64,
    pub(super) cuts: u64,
    pub(super) failed_writes: u64,
    pub(super) live: u64,
    pub(super) altered: u64,
    pub(super) copies_of_the_sender: u64,
    pub(super) copies_of_the_receiver: u64,
    pub(super) messages_of_copies: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Totals) {
        self.published += other.published;
        self.arrived += other.arrived;
        self.dropped_by_policy += other.dropped_by_policy;
        self.expired += other.expired;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
        self.crashes_of_the_sender += other.crashes_of_the_sender;
        self.crashes_of_the_receiver += other.crashes_of_the_receiver;
        self.cuts += other.cuts;
        self.failed_writes += other.failed_writes;
        self.live += other.live;
        self.altered += other.altered;
        self.copies_of_the_sender += other.copies_of_the_sender;
        self.copies_of_the_receiver += other.copies_of_the_receiver;
        self.messages_of_copies += other.messages_of_copies;
    }

    pub(super) fn faults(&self) -> [(&'static str, u64); 15] {
        [
            ("message", self.arrived),
            ("drop by policy", self.dropped_by_policy),
            ("expired message", self.expired),
            ("loss", self.lost),
            ("repeat", self.repeated),
            ("change of order", self.reordered),
            ("crash of the sender", self.crashes_of_the_sender),
            ("crash of the receiver", self.crashes_of_the_receiver),
            ("cut", self.cuts),
            ("failed write", self.failed_writes),
            ("live message", self.live),
            ("altered frame", self.altered),
            ("copy of the sender", self.copies_of_the_sender),
            ("copy of the receiver", self.copies_of_the_receiver),
            (
                "message of an agent beside its copy",
                self.messages_of_copies,
            ),
        ]
    }
}

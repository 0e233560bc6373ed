//! The seal around everything that two nodes say to each other: authenticated encryption under keys
//! that only they can compute, fresh for every pair of their starts, and a window against repeats.
//!
//! Both nodes know the other's X25519 key from their assignments, which the site signs. A node draws
//! an id whenever a session starts, its *boot*. Frames are sealed under a key of both boots, so a frame of an
//! earlier start of either is refused; within a pair every frame has a number of its own. A `hello`
//! tells the other one's boot: it is believed only when it repeats one's own, which nobody can have
//! recorded before.
//!
//! ```text
//! A (just started)                              B
//!   hello {from a, to nobody}       ─►            knows nothing by it, answers
//!                                   ◄─            hello {from b, to a}
//!   believes b; hello {from a, to b} ─►           believes a: whatever it sent to an earlier boot goes again
//! ```
//!
//! A boot that another one has replaced is never believed a second time under the same pair of keys.
//! A hello of such a boot is a recording, or the other node is alive twice: its directory was copied,
//! and the two take turns. So this node takes a fresh boot itself. A recording is worthless then,
//! because it repeats the old one; a node that is alive answers, and the new pair counts from zero
//! under keys that were never used. The same happens when a session with the present boot turns out
//! to be one-sided: the other node keeps addressing another boot than this one.
//!
//! Keys: HKDF-SHA256 (RFC 5869) over the X25519 secret (RFC 7748), with the boots as salt, and site,
//! direction and kind as info. Frames: ChaCha20-Poly1305 (RFC 8439), the number as nonce.
//!
//! ```text
//! version 1 B │ kind 1 B │ boot of the sender 16 B │ number 8 B │ ciphertext │ tag 16 B
//! └──────────── authenticated ────────────────────────────────┘
//! ```

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::window::Window;

const VERSION: u8 = 1;
const HELLO: u8 = 1;
const DATA: u8 = 2;
const HEADER_BYTES: usize = 26;
const TAG_BYTES: usize = 16;
/// What a seal adds to a frame.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// Boots of the other node that were replaced and are not believed again. With one more the node takes
/// another boot itself, so that whatever was recorded means nothing any more: a pair of boots that
/// came back would count from zero under keys that were used.
const RETIRED_MAX: usize = 32;
/// Hellos in a row, without a frame between them, that address another boot than this node's, after
/// which the other node is taken to have replaced it.
const DISPLACED_HELLOS: u32 = 3;

/// Names one start of a session: random, and never used for a second one.
pub type Boot = [u8; 16];

const NOBODY: Boot = [0; 16];

/// Why bytes were refused. Each is counted by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too short, or of a version or kind that is not known.
    #[error("malformed")]
    Malformed,
    /// Not sealed by the other node for this one, or altered.
    #[error("not authentic")]
    NotAuthentic,
    /// Sealed for or by an earlier start of one of the two: say hello.
    #[error("of another session")]
    OtherSession,
    /// It came before, or is far older than what came.
    #[error("repeated")]
    Repeated,
    /// The key of the other node is no key.
    #[error("no key")]
    NoKey,
}

/// What was inside a seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A frame.
    Data(Vec<u8>),
    /// A hello that wants to be answered with these bytes.
    Answer(Vec<u8>),
    /// The session is void, because the other node is alive under another boot than the one that is
    /// believed here. This node has taken a fresh boot; these bytes announce it.
    Renewed(Vec<u8>),
    /// The other node's boot is known now, and is another one than before: what it did not
    /// acknowledge goes again. Send it these bytes first.
    Begun(Vec<u8>),
    /// Nothing new.
    Nothing,
}

/// How much HKDF is to give for a boot.
struct BootLength;

impl hkdf::KeyType for BootLength {
    fn len(&self) -> usize {
        size_of::<Boot>()
    }
}

struct Pair {
    boot: Boot,
    sealing: LessSafeKey,
    opening: LessSafeKey,
    sent: u64,
    window: Window,
    /// Number of the frame that was opened last.
    opened: u64,
}

/// The seals between this node and one other.
pub struct Session {
    own: Boot,
    secret: hkdf::Prk,
    outward: Vec<u8>,
    inward: Vec<u8>,
    hellos: u64,
    pair: Option<Pair>,
    retired: Vec<Boot>,
    /// Hellos of the present pair to another boot of this node, since the last frame that opened.
    displaced: u32,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Session")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

/// Who the two are. Names bind the keys to the direction and the site.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// Id of the site.
    pub site: &'a str,
    /// Id of this node.
    pub own: &'a str,
    /// Id of the other node.
    pub other: &'a str,
}

impl Session {
    /// A session that has not begun. `boot` is this start of this node.
    ///
    /// # Errors
    /// `NoKey` when `other` is not a key that a node can have.
    pub fn new(
        ends: Ends<'_>,
        boot: Boot,
        own: &StaticSecret,
        other: &PublicKey,
    ) -> Result<Self, Refusal> {
        let shared = own.diffie_hellman(other);
        if !shared.was_contributory() {
            return Err(Refusal::NoKey);
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"haar link 1");
        let info = |from: &str, to: &str| format!("{}/{from}/{to}", ends.site).into_bytes();
        Ok(Self {
            own: boot,
            secret: salt.extract(shared.as_bytes()),
            outward: info(ends.own, ends.other),
            inward: info(ends.other, ends.own),
            hellos: 0,
            pair: None,
            retired: Vec::new(),
            displaced: 0,
        })
    }

    /// True when the other node's boot is known.
    pub fn is_open(&self) -> bool {
        self.pair.is_some()
    }

    /// A hello, for a node that has just started or been connected.
    pub fn hello(&mut self) -> Vec<u8> {
        let to = self.pair.as_ref().map_or(NOBODY, |pair| pair.boot);
        self.hello_to(to)
    }

    fn hello_to(&mut self, to: Boot) -> Vec<u8> {
        let key = self.key(&self.outward, HELLO, &self.own, &NOBODY);
        let mut bytes = buffer(to.len());
        bytes.extend(to);
        let bytes = seal(&key, HELLO, &self.own, self.hellos, bytes);
        self.hellos += 1;
        bytes
    }

    /// Seals a frame; none while the other node's boot is not known.
    pub fn seal(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = buffer(frame.len());
        bytes.extend(frame);
        self.seal_in_place(bytes)
    }

    /// Seals what was written into a [`buffer`], where it stands; none while the other node's boot is
    /// not known.
    pub fn seal_in_place(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let pair = self.pair.as_mut()?;
        let bytes = seal(&pair.sealing, DATA, &self.own, pair.sent, bytes);
        pair.sent += 1;
        Some(bytes)
    }

    /// Number of the frame that was opened last: the other node counts what it seals in this session.
    pub fn opened(&self) -> u64 {
        self.pair.as_ref().map_or(0, |pair| pair.opened)
    }

    /// Opens what came. `may_renew`: this node may take a fresh boot now, which ends the session; the
    /// caller limits how often.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn open(&mut self, bytes: &[u8], may_renew: bool) -> Result<Opened, Refusal> {
        let (header, sealed) = bytes
            .split_at_checked(HEADER_BYTES)
            .ok_or(Refusal::Malformed)?;
        let (kind, from, number) = parse(header).ok_or(Refusal::Malformed)?;
        match kind {
            HELLO => {
                let key = self.key(&self.inward, HELLO, &from, &NOBODY);
                let to = open(&key, header, number, sealed).ok_or(Refusal::NotAuthentic)?;
                let to = Boot::try_from(to.as_slice()).map_err(|_| Refusal::Malformed)?;
                Ok(self.greeted(from, to, may_renew))
            }
            DATA => {
                let pair = self.pair.as_mut().ok_or(Refusal::OtherSession)?;
                if pair.boot != from {
                    return Err(Refusal::OtherSession);
                }
                // One that is sealed for an earlier boot of ours does not open either.
                let frame =
                    open(&pair.opening, header, number, sealed).ok_or(Refusal::NotAuthentic)?;
                if !pair.window.is_new(number) {
                    return Err(Refusal::Repeated);
                }
                pair.opened = number;
                self.displaced = 0;
                Ok(Opened::Data(frame))
            }
            _ => Err(Refusal::Malformed),
        }
    }

    fn greeted(&mut self, from: Boot, to: Boot, may_renew: bool) -> Opened {
        let known = self.pair.as_ref().is_some_and(|pair| pair.boot == from);
        if to != self.own {
            // It may be a recording: it is answered, and believed by nobody.
            self.displaced += u32::from(known && to != NOBODY);
            if may_renew && self.displaced >= DISPLACED_HELLOS {
                return self.renew(from);
            }
            return Opened::Answer(self.hello_to(from));
        }
        if known {
            return Opened::Nothing;
        }
        let is_retired = self.retired.contains(&from);
        if is_retired && !may_renew {
            return Opened::Nothing;
        }
        if is_retired || self.retired.len() == RETIRED_MAX {
            return self.renew(from);
        }
        let sealing = self.key(&self.outward, DATA, &self.own, &from);
        let opening = self.key(&self.inward, DATA, &from, &self.own);
        let pair = Pair {
            boot: from,
            sealing,
            opening,
            sent: 0,
            window: Window::default(),
            opened: 0,
        };
        let before = self.pair.replace(pair);
        self.retired.extend(before.map(|before| before.boot));
        self.displaced = 0;
        Opened::Begun(self.hello_to(from))
    }

    /// Takes another boot and announces it.
    fn renew(&mut self, to: Boot) -> Opened {
        self.begin_anew();
        Opened::Renewed(self.hello_to(to))
    }

    /// Takes another boot, as after a start: one that nobody can foresee without the secret.
    fn begin_anew(&mut self) {
        let mut next = [0; 16];
        self.secret
            .expand(&[b"next boot", &self.own, &self.outward], BootLength)
            .and_then(|output| output.fill(&mut next))
            .expect("a boot is shorter than what HKDF gives");
        self.own = next;
        self.hellos = 0;
        self.pair = None;
        self.retired.clear();
        self.displaced = 0;
    }

    fn key(&self, info: &[u8], kind: u8, from: &Boot, to: &Boot) -> LessSafeKey {
        let parts: [&[u8]; 4] = [&[kind], from, to, info];
        let key: UnboundKey = self
            .secret
            .expand(&parts, &CHACHA20_POLY1305)
            .expect("a key is shorter than what HKDF gives")
            .into();
        LessSafeKey::new(key)
    }
}

/// Where a frame of about so many bytes is written to be sealed: its header stands already.
pub fn buffer(bytes: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(OVERHEAD_BYTES + bytes);
    buffer.extend([0; HEADER_BYTES]);
    buffer
}

fn seal(key: &LessSafeKey, kind: u8, from: &Boot, number: u64, mut bytes: Vec<u8>) -> Vec<u8> {
    let (header, plain) = bytes.split_at_mut(HEADER_BYTES);
    header[..2].copy_from_slice(&[VERSION, kind]);
    header[2..18].copy_from_slice(from);
    header[18..].copy_from_slice(&number.to_le_bytes());
    let tag = key
        .seal_in_place_separate_tag(nonce(number), Aad::from(header), plain)
        .expect("a frame is far shorter than what the cipher takes");
    bytes.extend(tag.as_ref());
    bytes
}

fn open(key: &LessSafeKey, header: &[u8], number: u64, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = sealed.to_vec();
    let length = key
        .open_in_place(nonce(number), Aad::from(header), &mut bytes)
        .ok()?
        .len();
    bytes.truncate(length);
    Some(bytes)
}

fn parse(header: &[u8]) -> Option<(u8, Boot, u64)> {
    let (start, rest) = header.split_at_checked(2)?;
    let (boot, number) = rest.split_at_checked(16)?;
    let number = u64::from_le_bytes(number.try_into().ok()?);
    (start[0] == VERSION).then_some((start[1], boot.try_into().ok()?, number))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

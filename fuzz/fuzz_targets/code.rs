//! Compiled code on its way: no bytes are a seal that nobody signed, and what comes out of pieces that
//! were changed on their way is the code that was sealed, or nothing.
#![no_main]

use haar_engine::artifact::{Expected, GoodSeal, Origin, pack, seal};
use haar_protocol::ids::Digest;
use haar_protocol::keys::SecretKey;
use haar_protocol::module::{COMPONENT_HEADER, Publishers, Signatures, sign};
use libfuzzer_sys::fuzz_target;

const FINGERPRINT: &str = "0123456789abcdef";
const TARGET: &str = "x86_64-linux";

struct Sealed {
    module: Digest,
    key: SecretKey,
    publisher: SecretKey,
    code: Vec<u8>,
    seal: Vec<u8>,
}

impl Sealed {
    fn new() -> Self {
        let (key, publisher) = (SecretKey::from_seed([3; 32]), SecretKey::from_seed([5; 32]));
        let module = Digest::of(b"module");
        let code: Vec<u8> = (0..70_000_u32).flat_map(|number| number.to_le_bytes()).collect();
        let signed = sign(&COMPONENT_HEADER, &publisher).expect("it can be signed");
        let origin = Origin {
            module: &module,
            signatures: &Signatures::of(&signed).expect("it is signed"),
            fingerprint: FINGERPRINT,
            target: TARGET,
        };
        let seal = seal(&origin, &code, &key);
        Self {
            module,
            key,
            publisher,
            code,
            seal,
        }
    }

    fn open(&self, bytes: &[u8]) -> Option<GoodSeal> {
        let expected = Expected {
            module: &self.module,
            publishers: Publishers {
                of_site: &[self.publisher.public()],
                of_owner: None,
                later: None,
            },
            fingerprint: FINGERPRINT,
            target: TARGET,
            trusted: &[self.key.public()],
        };
        expected.open(bytes).ok()
    }

    /// What comes of pieces, if it is the code.
    fn unpack(&self, mut pieces: &[u8]) -> Option<Vec<u8>> {
        let mut unpacking = self.open(&self.seal)?.unpack(&mut pieces).ok()?;
        let mut code = Vec::new();
        while unpacking.next(&mut pieces, &mut code).ok()? {}
        unpacking.finish().ok().map(|_| code)
    }
}

thread_local! {
    static SEALED: (Sealed, Vec<u8>) = {
        let sealed = Sealed::new();
        let pieces = pack(&[], &sealed.code);
        assert!(sealed.unpack(&pieces).is_some_and(|code| code == sealed.code));
        (sealed, pieces)
    };
}

fuzz_target!(|bytes: &[u8]| {
    SEALED.with(|(sealed, pieces)| {
        assert!(bytes == sealed.seal || sealed.open(bytes).is_none());
        // Bytes in place of the pieces, and bytes that say what is changed of them: where, and to what.
        let mut changed = pieces.clone();
        for change in bytes.chunks_exact(4) {
            let place = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize;
            let place = place % changed.len();
            changed[place] = change[3];
        }
        for pieces in [bytes, &changed] {
            if let Some(code) = sealed.unpack(pieces) {
                assert!(code == sealed.code);
            }
        }
    });
});

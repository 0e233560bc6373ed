//! What a relay, or another node, can do to sealed frames: nothing but be refused.

use haar_link::session::{Boot, Ends, Opened, Refusal, Session};
use x25519_dalek::{PublicKey, StaticSecret};

/// A node: its name and key.
#[derive(Clone)]
struct Node(&'static str, StaticSecret);

impl Node {
    fn new(name: &'static str, seed: u8) -> Self {
        Self(name, StaticSecret::from([seed; 32]))
    }

    fn public(&self) -> PublicKey {
        PublicKey::from(&self.1)
    }

    fn session(&self, other: &Node, boot: u8) -> Session {
        self.session_in("s-1", other, [boot; 16])
    }

    fn session_in(&self, site: &str, other: &Node, boot: Boot) -> Session {
        let ends = Ends {
            site,
            own: self.0,
            other: other.0,
        };
        Session::new(ends, boot, &self.1, &other.public()).unwrap()
    }
}

fn nodes() -> (Node, Node) {
    (Node::new("n-a", 1), Node::new("n-b", 2))
}

/// Lets the two greet each other until both are quiet.
fn greet(a: &mut Session, b: &mut Session) {
    let mut to_b = Some(a.hello());
    while let Some(hello) = to_b.take() {
        let Ok(Opened::Answer(answer) | Opened::Renewed(answer) | Opened::Begun(answer)) =
            b.open(&hello, true)
        else {
            break;
        };
        if let Ok(Opened::Answer(answer) | Opened::Renewed(answer) | Opened::Begun(answer)) =
            a.open(&answer, true)
        {
            to_b = Some(answer);
        }
    }
    assert!(a.is_open() && b.is_open());
}

fn pair() -> (Session, Session) {
    let (a, b) = nodes();
    let (mut left, mut right) = (a.session(&b, 10), b.session(&a, 20));
    greet(&mut left, &mut right);
    (left, right)
}

#[test]
fn frames_pass_both_ways_once_each_has_heard_of_the_other() {
    let (a, b) = nodes();
    let (mut left, mut right) = (a.session(&b, 10), b.session(&a, 20));
    assert_eq!(left.seal(b"early"), None);
    greet(&mut left, &mut right);
    let there = left.seal(b"there").unwrap();
    assert_eq!(
        right.open(&there, true),
        Ok(Opened::Data(b"there".to_vec()))
    );
    let back = right.seal(b"back").unwrap();
    assert_eq!(left.open(&back, true), Ok(Opened::Data(b"back".to_vec())));
    let secret = left.seal(&[b'x'; 64]).unwrap();
    assert!(!secret.windows(8).any(|bytes| bytes == [b'x'; 8]));
}

#[test]
fn a_repeated_frame_is_refused_and_a_late_one_is_not() {
    let (mut left, mut right) = pair();
    let first = left.seal(b"1").unwrap();
    let second = left.seal(b"2").unwrap();
    assert!(right.open(&second, true).is_ok());
    assert!(right.open(&first, true).is_ok());
    assert_eq!(right.open(&first, true), Err(Refusal::Repeated));
    assert_eq!(right.open(&second, true), Err(Refusal::Repeated));
}

#[test]
fn every_altered_bit_and_every_cut_is_refused() {
    let (mut left, mut right) = pair();
    let frame = left.seal(b"frame").unwrap();
    let hello = left.hello();
    for bytes in [frame, hello] {
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(right.open(&altered, true).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(
                right.open(&bytes[..length], true).is_err(),
                "cut at {length}"
            );
        }
    }
}

#[test]
fn frames_of_other_nodes_directions_and_sites_are_refused() {
    let (a, b) = nodes();
    let (mut left, mut right) = pair();
    let frame = left.seal(b"frame").unwrap();
    assert!(left.open(&frame, true).is_err(), "back to its sender");
    let other = Node::new("n-c", 3);
    // Another node with the relay's leave says that it is A, with its own key.
    let liar = Node("n-a", other.1.clone());
    let mut forged = liar.session(&b, 10);
    assert_eq!(
        right.open(&forged.hello(), true),
        Err(Refusal::NotAuthentic)
    );
    let mut elsewhere = a.session_in("s-2", &b, [10; 16]);
    assert_eq!(
        right.open(&elsewhere.hello(), true),
        Err(Refusal::NotAuthentic)
    );
    // What A sealed for C is not for B.
    let (mut to_c, mut c) = (a.session(&other, 10), other.session(&a, 30));
    greet(&mut to_c, &mut c);
    let frame = to_c.seal(b"for C").unwrap();
    assert_eq!(right.open(&frame, true), Err(Refusal::NotAuthentic));
}

#[test]
fn recordings_of_an_earlier_start_of_either_node_do_nothing() {
    let (a, b) = nodes();
    let (mut left, mut right) = (a.session(&b, 10), b.session(&a, 20));
    let early_hello = left.hello();
    greet(&mut left, &mut right);
    let confirmed_hello = left.hello();
    let frame = left.seal(b"old").unwrap();

    // B has started again.
    let mut right = b.session(&a, 21);
    assert_eq!(right.open(&frame, true), Err(Refusal::OtherSession));
    // A hello that repeats another boot is answered, and believed by nobody.
    for hello in [&early_hello, &confirmed_hello] {
        assert!(matches!(right.open(hello, true), Ok(Opened::Answer(_))));
        assert!(!right.is_open());
    }
    greet(&mut left, &mut right);
    assert_eq!(right.open(&frame, true), Err(Refusal::NotAuthentic));

    // A has started again: its earlier boot is not believed any more, whatever was recorded.
    let recorded = left.hello();
    let mut left = a.session(&b, 11);
    greet(&mut left, &mut right);
    assert_eq!(right.open(&recorded, false), Ok(Opened::Nothing));
    let frame = left.seal(b"new").unwrap();
    assert_eq!(right.open(&frame, true), Ok(Opened::Data(b"new".to_vec())));

    // It may also be a copy of A that is alive, so B asks it under a fresh boot, which voids every
    // recording.
    assert!(matches!(
        right.open(&recorded, true),
        Ok(Opened::Renewed(_))
    ));
    assert!(matches!(right.open(&recorded, true), Ok(Opened::Answer(_))));
    assert_eq!(right.open(&frame, true), Err(Refusal::OtherSession));
    greet(&mut left, &mut right);
    assert_eq!(right.open(&frame, true), Err(Refusal::NotAuthentic));
}

#[test]
fn a_node_whose_boot_was_replaced_by_a_copy_of_it_gets_a_session_again() {
    let (a, b) = nodes();
    let (mut left, mut right) = (a.session(&b, 10), b.session(&a, 20));
    greet(&mut left, &mut right);
    let before = left.seal(b"before").unwrap();
    let mut copy = a.session(&b, 11);
    greet(&mut copy, &mut right);
    let frame = left.seal(b"refused").unwrap();
    assert_eq!(right.open(&frame, true), Err(Refusal::OtherSession));
    // The copy has stopped. Whoever notices first says hello.
    let hello = right.hello();
    let Ok(Opened::Answer(answer)) = left.open(&hello, true) else {
        panic!("it is answered");
    };
    let Ok(Opened::Renewed(hello)) = right.open(&answer, true) else {
        panic!("a boot that was replaced is alive");
    };
    let Ok(Opened::Begun(answer)) = left.open(&hello, true) else {
        panic!("it is believed");
    };
    assert!(matches!(right.open(&answer, true), Ok(Opened::Begun(_))));
    let frame = left.seal(b"taken").unwrap();
    assert_eq!(
        right.open(&frame, true),
        Ok(Opened::Data(b"taken".to_vec()))
    );
    let back = right.seal(b"back").unwrap();
    assert_eq!(left.open(&back, true), Ok(Opened::Data(b"back".to_vec())));
    assert!(right.open(&before, true).is_err(), "keys are fresh");
}

#[test]
fn a_node_that_its_peer_takes_for_another_takes_a_fresh_boot_itself() {
    let (a, b) = nodes();
    let (mut left, mut right) = (a.session(&b, 10), b.session(&a, 20));
    greet(&mut left, &mut right);
    greet(&mut a.session(&b, 11), &mut right);
    // The other one is of a release that ignores boots that were replaced.
    let mut opened = Ok(Opened::Nothing);
    for _ in 0..3 {
        let hello = right.hello();
        assert!(matches!(left.open(&hello, false), Ok(Opened::Answer(_))));
        opened = left.open(&hello, true);
        if matches!(opened, Ok(Opened::Renewed(_))) {
            break;
        }
    }
    let Ok(Opened::Renewed(hello)) = opened else {
        panic!("it noticed nothing: {opened:?}");
    };
    let Ok(Opened::Begun(answer)) = right.open(&hello, false) else {
        panic!("it repeats the boot of the other one");
    };
    assert!(matches!(left.open(&answer, false), Ok(Opened::Begun(_))));
    let frame = left.seal(b"taken").unwrap();
    assert_eq!(
        right.open(&frame, false),
        Ok(Opened::Data(b"taken".to_vec()))
    );
}

#[test]
fn a_key_that_is_no_key_is_refused() {
    let (a, b) = nodes();
    let ends = Ends {
        site: "s-1",
        own: a.0,
        other: b.0,
    };
    let no_key = PublicKey::from([0; 32]);
    let refusal = Session::new(ends, [1; 16], &a.1, &no_key).err();
    assert_eq!(refusal, Some(Refusal::NoKey));
}

#[test]
fn no_pair_of_boots_comes_back_however_often_the_other_node_starts() {
    let (a, b) = nodes();
    let mut right = b.session(&a, 200);
    let mut recorded = Vec::new();
    for boot in 1..=100 {
        let mut left = a.session(&b, boot);
        greet(&mut left, &mut right);
        recorded.push(left.hello());
        let frame = left.seal(b"frame").unwrap();
        assert_eq!(
            right.open(&frame, true),
            Ok(Opened::Data(b"frame".to_vec()))
        );
        for hello in &recorded {
            let opened = right.open(hello, true);
            assert!(
                matches!(
                    opened,
                    Ok(Opened::Nothing | Opened::Answer(_) | Opened::Renewed(_))
                ),
                "start {boot}: {opened:?}"
            );
        }
        assert!(right.open(&frame, true).is_err(), "start {boot}");
        greet(&mut left, &mut right);
        let back = right.seal(b"back").unwrap();
        assert_eq!(left.open(&back, true), Ok(Opened::Data(b"back".to_vec())));
    }
}

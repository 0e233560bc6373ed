//! Who gives way to whom, and that nothing is counted wrong.

use proptest::prelude::*;

use super::*;

const LIMITS: DoorLimits = DoorLimits {
    admitted_max: 4,
    admitted_per_address_max: 3,
    strangers_max: 3,
    strangers_per_address_max: 2,
};

fn peer(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

fn is_lost(place: &Place) -> bool {
    place.lost.is_cancelled()
}

#[test]
fn the_oldest_silent_stranger_gives_way_first() {
    let door = Door::new(LIMITS);
    let first = door.enter(peer(1, 1)).unwrap();
    let second = door.enter(peer(2, 1)).unwrap();
    let third = door.enter(peer(3, 1)).unwrap();
    first.advance(Progress::Greeting);
    let fourth = door.enter(peer(4, 1)).unwrap();
    assert_eq!(
        [&first, &second, &third, &fourth].map(is_lost),
        [false, true, false, false]
    );
    third.advance(Progress::Encrypted);
    fourth.advance(Progress::Encrypted);
    let _fifth = door.enter(peer(5, 1)).unwrap();
    assert_eq!([&first, &third, &fourth].map(is_lost), [true, false, false]);
    assert_eq!(door.counts(), (0, 3));
}

#[test]
fn a_crowd_from_one_address_pushes_out_its_own() {
    let door = Door::new(LIMITS);
    let other = door.enter(peer(9, 1)).unwrap();
    let first = door.enter(peer(1, 1)).unwrap();
    let second = door.enter(peer(1, 2)).unwrap();
    let third = door.enter(peer(1, 3)).unwrap();
    assert_eq!(
        [&other, &first, &second, &third].map(is_lost),
        [false, true, false, false]
    );
}

#[test]
fn an_ipv6_customer_is_one_address_and_mapped_ipv4_is_ipv4() {
    let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
    assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
    assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
    assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
}

#[test]
fn admitted_connections_keep_their_places_and_do_not_count_as_strangers() {
    let door = Door::new(LIMITS);
    let node = door.enter(peer(1, 1)).unwrap();
    assert!(door.admit(peer(1, 1)) && node.is_admitted());
    let crowd: Vec<_> = (0..20)
        .map(|number| door.enter(peer(2 + number, 1)).unwrap())
        .collect();
    assert!(!is_lost(&node));
    assert_eq!(door.counts(), (1, 3));
    assert!(!crowd[0].admit(), "its place is lost");
    drop(crowd);
    drop(node);
    assert_eq!(door.counts(), (0, 0));
    assert!(door.lock().counts.is_empty() && door.lock().by_peer.is_empty());
}

#[test]
fn an_address_that_was_admitted_lately_goes_before_all_others() {
    let door = Door::new(LIMITS);
    let node = door.enter(peer(1, 1)).unwrap();
    assert!(node.admit());
    drop(node);
    let crowd: Vec<_> = (0..3)
        .map(|number| {
            let place = door.enter(peer(2 + number, 1)).unwrap();
            place.advance(Progress::Encrypted);
            place
        })
        .collect();
    let back = door.enter(peer(1, 2)).unwrap();
    assert!(is_lost(&crowd[0]));
    let more: Vec<_> = (0..10)
        .map(|number| door.enter(peer(20 + number, 1)).unwrap())
        .collect();
    assert!(!is_lost(&back), "a stranger took the place of a known one");
    assert!(back.admit());
    drop(more);
}

#[test]
fn unknown_strangers_are_refused_when_known_ones_fill_all_places() {
    let door = Door::new(LIMITS);
    for host in 1..=3 {
        assert!(door.enter(peer(host, 1)).unwrap().admit());
    }
    let known: Vec<_> = (1..=3)
        .map(|host| door.enter(peer(host, 2)).unwrap())
        .collect();
    assert_eq!(door.enter(peer(9, 1)).unwrap_err(), Full::Known(3));
    assert!(!known.iter().any(is_lost));
}

#[test]
fn admitted_connections_are_bounded_in_total_and_by_address() {
    let door = Door::new(LIMITS);
    let mut admitted = Vec::new();
    for port in 1..=3 {
        let place = door.enter(peer(1, port)).unwrap();
        assert!(place.admit());
        admitted.push(place);
    }
    assert_eq!(door.enter(peer(1, 9)).unwrap_err(), Full::Address(3));
    let (fourth, fifth) = (
        door.enter(peer(2, 1)).unwrap(),
        door.enter(peer(3, 1)).unwrap(),
    );
    assert!(fourth.admit() && !fifth.admit(), "four in total");
    assert_eq!(door.enter(peer(4, 1)).unwrap_err(), Full::Admitted(4));
}

#[test]
fn no_more_sources_are_remembered_than_may_be_admitted() {
    let door = Door::new(LIMITS);
    for host in 1..=50 {
        assert!(door.enter(peer(host, 1)).unwrap().admit());
    }
    let state = door.lock();
    assert_eq!(
        (state.known.by_source.len(), state.known.by_age.len()),
        (4, 4)
    );
    assert!((47..=50).all(|host| {
        state
            .known
            .by_source
            .contains_key(&Source::from(peer(host, 1).ip()))
    }));
}

#[test]
fn a_listener_without_descriptors_gets_those_of_strangers_back_and_no_others() {
    let door = Door::new(LIMITS);
    let node = door.enter(peer(1, 1)).unwrap();
    assert!(node.admit());
    let strangers = [
        door.enter(peer(2, 1)).unwrap(),
        door.enter(peer(3, 1)).unwrap(),
    ];
    assert!(door.drop_one_stranger());
    assert_eq!(strangers.each_ref().map(is_lost), [true, false]);
    assert!(door.drop_one_stranger());
    assert!(!door.drop_one_stranger() && !is_lost(&node));
}

proptest! {
    /// Whatever comes and goes, the limits hold and the counts are those of the places.
    #[test]
    fn limits_hold_and_counts_are_true(steps in prop::collection::vec((0u8..6, 0u8..5, any::<u8>()), 0..300)) {
        let door = Door::new(LIMITS);
        let mut places: Vec<Place> = Vec::new();
        for (number, (step, host, pick)) in steps.into_iter().enumerate() {
            let port = u16::try_from(number).unwrap() + 1;
            match step {
                0..=2 => places.extend(door.enter(peer(host, port))),
                _ if places.is_empty() => {}
                3 => drop(places.swap_remove(usize::from(pick) % places.len())),
                4 => drop(places[usize::from(pick) % places.len()].admit()),
                _ => places[usize::from(pick) % places.len()].advance(Progress::Greeting),
            }
            places.retain(|place| !is_lost(place));
            let (admitted, strangers) = door.counts();
            prop_assert_eq!(admitted, places.iter().filter(|place| place.is_admitted()).count());
            prop_assert_eq!(admitted + strangers, places.len());
            prop_assert!(admitted <= LIMITS.admitted_max && strangers <= LIMITS.strangers_max);
            let state = door.lock();
            for counts in state.counts.values() {
                prop_assert!(counts.strangers <= LIMITS.strangers_per_address_max);
                prop_assert!(counts.admitted <= LIMITS.admitted_per_address_max);
            }
        }
    }
}

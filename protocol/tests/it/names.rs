//! Ids, names and quantities: what is printed parses back, what is not valid is refused.

use haar_protocol::ids::{Digest, MediaType, Name, NodeId, PortName, RouteId, SiteId, check_label};
use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::manifest::ModuleReference;
use haar_protocol::number::NUMBER_MAX;
use haar_protocol::quantity::{ByteSize, Millis};
use proptest::prelude::*;

use crate::fixtures::{key, name, node, site};

const NAME: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";

proptest! {
    #[test]
    fn sizes_and_times_read_back_as_they_are_written(amount in 0..=NUMBER_MAX) {
        prop_assert_eq!(ByteSize(amount).to_string().parse(), Ok(ByteSize(amount)));
        prop_assert_eq!(Millis(amount).to_string().parse(), Ok(Millis(amount)));
    }

    #[test]
    fn sizes_and_times_end_where_numbers_end(amount in NUMBER_MAX + 1..) {
        prop_assert!(ByteSize(amount).to_string().parse::<ByteSize>().is_err());
        prop_assert!(Millis(amount).to_string().parse::<Millis>().is_err());
    }

    #[test]
    fn round_sizes_are_written_in_their_unit(amount in 1u64..1000, unit in 0usize..5) {
        let unit = ["B", "KiB", "MiB", "GiB", "GB"][unit];
        let size: ByteSize = format!("{amount} {unit}").parse().unwrap();
        prop_assert_eq!(size.to_string().parse(), Ok(size));
    }

    #[test]
    fn names_read_back_as_they_are_written(text in NAME, port in NAME) {
        prop_assert_eq!(text.parse::<Name>().unwrap().to_string(), text.clone());
        let port = format!("{text}.{port}");
        prop_assert_eq!(port.parse::<PortName>().unwrap().to_string(), port.clone());
        let module = format!("{text}@1.2.3-rc.1+build_7");
        prop_assert_eq!(module.parse::<ModuleReference>().unwrap().to_string(), module.clone());
    }

    #[test]
    fn keys_and_their_ids_read_back_as_they_are_written(seed: [u8; 32]) {
        let key = SecretKey::from_seed(seed);
        let public = key.public();
        prop_assert_eq!(public.to_string().parse(), Ok(public));
        prop_assert_eq!(PublicKey::from_pem(&public.to_pem()), Ok(public));
        prop_assert_eq!(SecretKey::from_pem(&key.to_pem()).unwrap().public(), public);
        let (site, node) = (SiteId::of(&public), NodeId::of(&public));
        prop_assert_eq!(site.to_string().parse(), Ok(site.clone()));
        prop_assert_eq!(node.to_string().parse(), Ok(node.clone()));
        prop_assert!(site.as_str().parse::<NodeId>().is_err());
        prop_assert!(node.as_str().parse::<SiteId>().is_err());
    }

    #[test]
    fn digests_and_route_ids_read_back_as_they_are_written(bytes: [u8; 32], number: u64) {
        let digest = Digest::from_bytes(bytes);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        let route = RouteId::from_u64(number);
        prop_assert_eq!(RouteId::try_from(route.to_string()), Ok(route));
    }

    #[test]
    fn whatever_parses_is_written_as_it_was_read(text in "\\PC{0,40}|[a-z0-9.@:/+-]{0,80}") {
        if let Ok(value) = text.parse::<Name>() { prop_assert_eq!(value.as_str(), &text); }
        if let Ok(value) = text.parse::<MediaType>() { prop_assert_eq!(value.as_str(), &text); }
        if let Ok(value) = text.parse::<PortName>() { prop_assert_eq!(value.to_string(), text.clone()); }
        if let Ok(value) = text.parse::<ModuleReference>() { prop_assert_eq!(value.to_string(), text.clone()); }
        if let Ok(value) = text.parse::<Digest>() { prop_assert_eq!(value.to_string(), text.clone()); }
        if let Ok(value) = text.parse::<NodeId>() { prop_assert_eq!(value.to_string(), text.clone()); }
        if let Ok(value) = RouteId::try_from(text.clone()) { prop_assert_eq!(value.to_string(), text); }
    }

    #[test]
    fn quantities_never_panic(text in "\\PC{0,20}|[0-9]{0,25} ?[kKMGiBmsinhd]{0,3}") {
        let _ = text.parse::<ByteSize>();
        let _ = text.parse::<Millis>();
    }
}

#[test]
fn names_that_are_no_dns_labels_are_refused() {
    for text in [
        "",
        "-a",
        "a-",
        "A",
        "a_b",
        "a.b",
        "ä",
        "a b",
        "a\0",
        &"a".repeat(64),
    ] {
        assert!(text.parse::<Name>().is_err(), "{text:?}");
    }
    assert!("a".repeat(63).parse::<Name>().is_ok());
}

#[test]
fn media_types_with_parameters_capitals_or_wildcards_are_refused() {
    for text in [
        "", "a", "a/", "/b", "a/b/c", "A/b", "a/b;q=1", "a/*", "*/*", "a/ b", "-a/b",
    ] {
        assert!(text.parse::<MediaType>().is_err(), "{text:?}");
    }
    for text in ["text/plain", "application/vnd.acme.reading+json", "a/b"] {
        assert!(text.parse::<MediaType>().is_ok(), "{text:?}");
    }
}

#[test]
fn route_ids_have_one_spelling() {
    for text in [
        "",
        "+00000000000000f",
        "0123456789ABCDEF",
        "0123456789abcde",
        "0123456789abcdef0",
        "0x23456789abcdef",
    ] {
        assert!(RouteId::try_from(text.to_owned()).is_err(), "{text:?}");
    }
}

#[test]
fn quantities_without_a_known_unit_or_beyond_64_bits_are_refused() {
    for text in [
        "",
        "16",
        "MiB",
        "16mib",
        "1.5MiB",
        "-1B",
        "16 MiB B",
        "18446744073709551616B",
        "99999999999GiB",
    ] {
        assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
    }
    for text in ["", "5", "5S", "5 seconds", "1e3ms", "99999999999999999d"] {
        assert!(text.parse::<Millis>().is_err(), "{text:?}");
    }
    assert_eq!("0B".parse::<ByteSize>().unwrap().to_string(), "0B");
    assert_eq!("90s".parse::<Millis>().unwrap(), Millis(90_000));
}

#[test]
fn module_versions_are_short_and_plain() {
    for text in [
        "a@",
        "a",
        "@1",
        "a@1 2",
        "a@1@2",
        "a@1\n",
        "A@1",
        &format!("a@{}", "1".repeat(129)),
        "sha256:00",
    ] {
        assert!(text.parse::<ModuleReference>().is_err(), "{text:?}");
    }
}

#[test]
fn labels_are_1_to_63_plain_characters() {
    assert!(check_label("site/hall", "North-1.a_b").is_ok());
    assert!(check_label(&"k".repeat(63), &"v".repeat(63)).is_ok());
    for (key, value) in [
        ("", "a"),
        ("a", ""),
        ("a b", "c"),
        ("ä", "c"),
        ("a", "\u{1b}[31m"),
        (&"k".repeat(64), "v"),
    ] {
        let error = check_label(key, value).unwrap_err().0;
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
}

#[test]
fn ids_of_a_known_key_never_change() {
    crate::golden::check(
        "ids.txt",
        &format!(
            "{}\n{}\n{}\n{}\n",
            key(1).public(),
            site(),
            node(2),
            crate::fixtures::route_id()
        ),
    );
    assert_eq!(name("a").as_str(), "a");
}

//! Which imports of a component are offered.

use haar_protocol::grants::{Grants, SystemPart, advice_for, denied, grant_for, lacking};

const OFFERED: [&str; 24] = [
    "haar:local/types@0.1.0",
    "haar:local/messaging@0.1.0",
    "haar:local/messaging@0.1.7",
    "haar:local/timers@0.1.12",
    "wasi:io/streams@0.2.0",
    "wasi:io/poll@0.2.6",
    "wasi:io/error@0.2.10",
    "wasi:cli/environment@0.2.0",
    "wasi:cli/terminal-stderr@0.2.3",
    "wasi:clocks/wall-clock@0.2.9",
    "wasi:clocks/monotonic-clock@0.2.0",
    "wasi:filesystem/types@0.2.6",
    "wasi:filesystem/preopens@0.2.6",
    "wasi:random/random@0.2.0",
    "wasi:random/insecure-seed@0.2.1",
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/runtime@0.2.0-draft",
    "haar:local/history@0.1.0",
    "haar:local/node@0.1.0",
    "wasi:logging/logging@0.1.0-draft",
    "wasi:sockets/tcp@0.2.6",
    "wasi:sockets/instance-network@0.2.9",
];

const LACKING: [&str; 32] = [
    // Nobody offers them.
    "wasi:sockets/other@0.2.6",
    "wasi:sockets/tcp@0.3.0",
    "wasi:http/outgoing-handler@0.2.6",
    "wasi:io/other@0.2.0",
    "haar:local/other@0.1.0",
    "haar:other/messaging@0.1.0",
    "acme:local/messaging@0.1.0",
    // Other versions.
    "haar:local/messaging@0.2.0",
    "haar:local/messaging@1.0.0",
    "haar:local/messaging@0.1.0-rc.1",
    "haar:local/messaging@0.1",
    "haar:local/messaging@0.1.",
    "haar:local/messaging@0.1.x",
    "haar:local/messaging@0.10.0",
    "haar:local/messaging",
    "wasi:io/streams@0.1.0",
    "wasi:io/streams@0.3.0",
    "wasi:io/streams@0.2.0-rc-2023-12-05",
    "wasi:io/streams@0.2.6+build",
    "wasi:io/streams@0.2.6.1",
    "wasi:io/streams@0.20.0",
    "wasi:io/streams",
    "wasi:config/store@0.2.0",
    "wasi:config/store@0.2.0-rc.2",
    "wasi:config/runtime@0.2.0",
    "wasi:keyvalue/store@0.2.0",
    "wasi:keyvalue/other@0.2.0-draft",
    "wasi:logging/logging@0.1.0",
    "wasi:logging/logging@0.2.0",
    // No interfaces of packages.
    "log-line",
    "",
    "@0.2.0",
];

/// Offered with the grant `key_value`, and without it not.
const KEY_VALUE: [&str; 4] = [
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft2",
];

fn imports(lists: &[&[&str]]) -> Vec<String> {
    let names = lists.iter().flat_map(|list| list.iter());
    names.map(|import| (*import).to_owned()).collect()
}

#[test]
fn an_interface_is_offered_by_its_name_and_a_compatible_version_only() {
    let imports = imports(&[&OFFERED, &LACKING]);
    assert_eq!(lacking(&imports, &Grants::default()), LACKING);
}

#[test]
fn what_is_offered_and_denied_with_every_call_is_named() {
    let said = denied(&imports(&[&OFFERED])).unwrap();
    assert!(said.contains("wasi:sockets"), "{said}");
    assert_eq!(denied(&imports(&[&["wasi:io/poll@0.2.6"]])), None);
    let advice = advice_for("wasi:http/types@0.2.10").unwrap();
    assert!(advice.contains("--disable http"), "{advice}");
    assert_eq!(advice_for("acme:unknown/thing@1.0.0"), None);
}

#[test]
fn measurements_are_offered_to_those_who_are_granted_any_part_of_them() {
    let import = ["haar:local/system@0.1.0".to_owned()];
    let granted = Grants {
        system: [SystemPart::Memory].into(),
        ..Grants::default()
    };
    assert!(lacking(&import, &granted).is_empty());
    assert_eq!(lacking(&import, &Grants::default()), import);
    assert_eq!(grant_for(&import[0]), Some("grants: { system: true }"));
    assert_eq!(grant_for("haar:local/system@0.2.0"), None);
}

#[test]
fn a_key_value_store_is_offered_to_those_who_are_granted_one() {
    let imports = imports(&[&OFFERED, &KEY_VALUE, &LACKING]);
    let granted = Grants {
        key_value: true,
        ..Grants::default()
    };
    assert_eq!(lacking(&imports, &granted), LACKING);
    let without = lacking(&imports, &Grants::default());
    assert_eq!(without, [KEY_VALUE.as_slice(), &LACKING].concat());
}

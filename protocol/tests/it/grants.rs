//! Which imports of a component are offered.

use haar_protocol::grants::{Grants, lacking};

const OFFERED: [&str; 20] = [
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
    "wasi:logging/logging@0.1.0-draft",
];

const LACKING: [&str; 31] = [
    // Nobody offers them.
    "wasi:sockets/tcp@0.2.6",
    "wasi:http/outgoing-handler@0.2.6",
    "wasi:keyvalue/store@0.2.0-draft",
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
    "wasi:config/store@0.2.0-draft-2023-01-01",
    "wasi:config/runtime@0.2.0-rc.1",
    "wasi:logging/logging@0.1.0",
    "wasi:logging/logging@0.2.0",
    // No interfaces of packages.
    "log-line",
    "",
    "@0.2.0",
];

#[test]
fn an_interface_is_offered_by_its_name_and_a_compatible_version_only() {
    let imports: Vec<String> = OFFERED
        .iter()
        .chain(&LACKING)
        .map(|import| (*import).to_owned())
        .collect();
    assert_eq!(lacking(&imports, &Grants::default()), LACKING);
}

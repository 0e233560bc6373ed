//! Addresses of relays.

use super::*;

#[test]
fn an_address_has_a_scheme_a_host_and_a_port() {
    let url: RelayUrl = "mqtts://broker.example".parse().unwrap();
    assert_eq!(url.to_string(), "mqtts://broker.example:8883");
    let url: RelayUrl = "mqtt://[::1]:1".parse().unwrap();
    assert_eq!((url.encrypted, url.address.port), (false, 1));
    assert!(url.address.is_loopback());
    let wrong = [
        "",
        "relay",
        "mqtt:127.0.0.1",
        "http://127.0.0.1",
        "mqtt://",
        "mqtt://127.0.0.1:0",
        "mqtt://127.0.0.1:99999",
        "mqtt://user@127.0.0.1",
        "mqtt://127.0.0.1/path",
        "mqtt://[::1",
        "mqtt://[::1]x",
        "mqtt://[x]:1",
        "mqtt://127.0.0.1:1:2",
    ];
    for url in wrong {
        assert!(url.parse::<RelayUrl>().is_err(), "{url}");
    }
    assert!("192.168.1.10".parse::<HostPort>().is_err());
    let shown = "[2001:db8::7]:7422";
    assert_eq!(shown.parse::<HostPort>().unwrap().to_string(), shown);
}

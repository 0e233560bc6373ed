//! What a message of a device becomes, and what becomes one.

use super::*;

fn said(user: Vec<(String, String)>) -> MessageProperties {
    MessageProperties {
        user,
        ..MessageProperties::default()
    }
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn properties_of_a_device_never_pass_for_headers_of_ours() {
    let properties = vec![
        pair("mqtt-topic", "forged"),
        pair("unit", "C"),
        pair("mqtt-retained", "true"),
        pair("MQTT-Topic", "forged"),
        pair("mqtt", "°"),
        pair("mqtt°-", "x"),
    ];
    let (found, left_out) = headers("plant/7", false, false, said(properties));
    let expected = [
        pair("mqtt-topic", "plant/7"),
        pair("unit", "C"),
        pair("mqtt", "°"),
        pair("mqtt°-", "x"),
    ];
    assert_eq!(found, expected);
    assert_eq!(left_out, 3);
    let (found, _) = headers("plant/7", true, false, said(Vec::new()));
    let expected = [pair("mqtt-topic", "plant/7"), pair("mqtt-retained", "true")];
    assert_eq!(found, expected);
    let (found, _) = headers("plant/7", false, true, said(Vec::new()));
    let expected = [pair("mqtt-topic", "plant/7"), pair("mqtt-dup", "true")];
    assert_eq!(found, expected);
}

#[test]
fn headers_over_which_a_broker_ends_the_connection_stay_here() {
    let headers = vec![
        pair("unit", "°C"),
        pair("nul", "a\0b"),
        pair("line\n", "a"),
        pair("high", "\u{9f}"),
        pair("none", "\u{ffff}"),
        pair("long", &"x".repeat(65_536)),
    ];
    assert_eq!(properties("a/b", &headers).user, [pair("unit", "°C")]);
}

#[test]
fn every_property_of_a_device_becomes_a_header() {
    let many = vec![pair("a", "b"); 1_000];
    let (found, left_out) = headers("t", false, false, said(many));
    assert_eq!((found.len(), left_out), (1_001, 0));
}

#[test]
fn what_mqtt_says_about_a_message_passes_as_headers_and_becomes_properties_again() {
    let device = MessageProperties {
        content_type: Some("text/plain; charset=utf-8".into()),
        response_topic: Some("plant/answers".into()),
        correlation_data: Some(Bytes::from_static(&[0, 0xff])),
        is_text: true,
        expiry_s: Some(5),
        user: vec![pair("unit", "C")],
    };
    let (found, _) = headers("plant/7", false, false, device.clone());
    let expected = [
        pair("mqtt-topic", "plant/7"),
        pair("mqtt-content-type", "text/plain; charset=utf-8"),
        pair("mqtt-payload-format", "utf-8"),
        pair("mqtt-response-topic", "plant/answers"),
        pair("mqtt-correlation-data", "00ff"),
        pair("mqtt-message-expiry", "5"),
        pair("unit", "C"),
    ];
    assert_eq!(found, expected);
    let sent = properties("text/plain", &found);
    let user = vec![pair("mqtt-topic", "plant/7"), pair("unit", "C")];
    assert_eq!(sent, MessageProperties { user, ..device });
    assert_eq!(
        properties("a/b", &found).content_type.as_deref(),
        Some("a/b")
    );
}

#[test]
fn headers_that_mqtt_has_no_form_for_are_not_sent() {
    let headers = vec![
        pair("mqtt-response-topic", "plant/#"),
        pair("mqtt-correlation-data", "not hexadecimal"),
        pair("mqtt-message-expiry", "-1"),
        pair("mqtt-payload-format", "latin"),
    ];
    let expected = MessageProperties {
        content_type: Some("a/b".into()),
        ..MessageProperties::default()
    };
    assert_eq!(properties("a/b", &headers), expected);
}

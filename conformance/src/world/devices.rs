//! Messages as devices send them: those of common device families (`conformance/world/devices.jsonl`),
//! and numbered ones for bursts.

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

const DEVICES: &str = include_str!("../../world/devices.jsonl");

/// Which MQTT a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Protocol {
    /// MQTT 3.1.1: no properties.
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.
    #[serde(rename = "5")]
    V5,
}

impl Protocol {
    /// Both.
    pub(super) const ALL: [Protocol; 2] = [Protocol::V311, Protocol::V5];

    /// As people write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Protocol::V311 => "3.1.1",
            Protocol::V5 => "5",
        }
    }
}

/// What MQTT 5 says beside a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Properties {
    pub(super) response_topic: Option<String>,
    /// In hexadecimal.
    #[serde(rename = "correlation_data_hex")]
    pub(super) correlation_data: Option<String>,
    /// Seconds.
    pub(super) message_expiry_s: Option<u32>,
    pub(super) content_type: Option<String>,
    pub(super) payload_format: Option<u8>,
    pub(super) topic_alias: Option<u16>,
    pub(super) user: Vec<(String, String)>,
}

/// One PUBLISH of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) body: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) properties: Properties,
}

impl Publish {
    /// A message without properties.
    pub(super) fn plain(topic: &str, body: &[u8], qos: u8) -> Self {
        Self {
            topic: topic.to_owned(),
            body: body.to_owned(),
            qos,
            retain: false,
            properties: Properties::default(),
        }
    }

    /// Messages whose bodies count from 1 to `count`.
    pub(super) fn numbered(topic: &str, count: u32, qos: u8) -> Vec<Self> {
        let body = |number: u32| number.to_string().into_bytes();
        let numbers = 1..=count;
        numbers
            .map(|number| Self::plain(topic, &body(number), qos))
            .collect()
    }

    /// As the scripts of the clients read it.
    pub(super) fn line(&self) -> Value {
        let told = &self.properties;
        let mut properties = json!({ "user": told.user });
        let mut tell = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                properties[key] = value;
            }
        };
        tell(
            "response_topic",
            told.response_topic.clone().map(Value::from),
        );
        tell(
            "correlation_data",
            told.correlation_data.clone().map(Value::from),
        );
        tell("message_expiry_s", told.message_expiry_s.map(Value::from));
        tell("content_type", told.content_type.clone().map(Value::from));
        tell("payload_format", told.payload_format.map(Value::from));
        tell("topic_alias", told.topic_alias.map(Value::from));
        json!({
            "topic": self.topic,
            "body": hex(&self.body),
            "qos": self.qos,
            "retain": self.retain,
            "properties": properties,
        })
    }
}

/// A message of a device family.
#[derive(Debug, Clone)]
pub(super) struct Device {
    /// Whose format it is.
    pub(super) family: String,
    /// What it speaks.
    pub(super) protocol: Protocol,
    pub(super) publish: Publish,
}

/// A line of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    family: String,
    topic: String,
    qos: u8,
    retain: bool,
    version: Protocol,
    #[serde(default)]
    payload: String,
    payload_hex: Option<String>,
    /// Zero bytes behind the payload.
    #[serde(default)]
    pad_zero_bytes: usize,
    /// The payload is a JSON object whose list `rows` has the numbers below this.
    rows: Option<u32>,
    #[serde(default)]
    properties: Properties,
    #[serde(default, rename = "note")]
    _note: String,
}

impl Line {
    fn body(&self) -> anyhow::Result<Vec<u8>> {
        let mut body = match (&self.payload_hex, self.rows) {
            (Some(text), _) => unhex(text)?,
            (None, Some(rows)) => {
                let mut report: Value = serde_json::from_str(&self.payload)?;
                report["rows"] = (0..rows).collect();
                report.to_string().into_bytes()
            }
            (None, None) => self.payload.clone().into_bytes(),
        };
        body.resize(body.len() + self.pad_zero_bytes, 0);
        Ok(body)
    }
}

/// The messages of all device families, in the order of the file.
pub(super) fn all() -> anyhow::Result<Vec<Device>> {
    let lines = DEVICES.lines().filter(|line| !line.is_empty());
    lines
        .enumerate()
        .map(|(at, text)| {
            let line: Line = serde_json::from_str(text)
                .with_context(|| format!("line {} of devices.jsonl", at + 1))?;
            let body = line.body()?;
            Ok(Device {
                family: line.family,
                protocol: line.version,
                publish: Publish {
                    topic: line.topic,
                    body,
                    qos: line.qos,
                    retain: line.retain,
                    properties: line.properties,
                },
            })
        })
        .collect()
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that were written in hexadecimal.
pub(super) fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(
        text.is_ascii() && text.len().is_multiple_of(2),
        "not hexadecimal: {text}"
    );
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16);
    let bytes: Result<_, _> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.with_context(|| format!("not hexadecimal: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_message_of_the_file_is_read() {
        let devices = all().unwrap();
        assert_eq!(devices.len(), 40);
        let body = |family: &str| {
            let found = devices.iter().find(|device| device.family == family);
            found.unwrap().publish.body.clone()
        };
        assert_eq!(body("null bytes"), [0; 16]);
        assert_eq!(body("camera still").len(), 11 + 204_800);
        let report: Value = serde_json::from_slice(&body("large report")).unwrap();
        assert_eq!(report["rows"].as_array().unwrap().len(), 30_000);
    }

    #[test]
    fn bytes_survive_hexadecimal() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)).unwrap(), bytes);
        assert!(unhex("abc").is_err() && unhex("zz").is_err() && unhex("é").is_err());
    }
}

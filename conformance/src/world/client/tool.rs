//! Mosquitto's tools: what they are to be told, and what they say.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::Heard;
use crate::broker::HOST;
use crate::child;
use crate::world::devices::{Protocol, Publish, unhex};

/// What starts `mosquitto_pub` for messages that differ in their bodies only: one, or lines of text. `input`
/// is a file for the bodies.
pub(super) fn publisher(
    program: &Path,
    input: &Path,
    port: u16,
    protocol: Protocol,
    messages: &[Publish],
) -> anyhow::Result<Command> {
    let first = messages.first().context("there is nothing to publish")?;
    let mut command = Command::new(program);
    command.args(arguments(port, protocol)).args([
        "-t",
        &first.topic,
        "-q",
        &first.qos.to_string(),
    ]);
    if first.retain {
        command.arg("-r");
    }
    if protocol == Protocol::V5 {
        properties(&mut command, first);
    }
    match messages {
        [one] if one.body.is_empty() => {
            command.arg("-n");
        }
        [one] => {
            std::fs::write(input, &one.body)?;
            command.arg("-s");
        }
        several => {
            let mut file = std::io::BufWriter::new(File::create(input)?);
            for message in several {
                file.write_all(&message.body)?;
                file.write_all(b"\n")?;
            }
            file.flush()?;
            command.arg("-l");
        }
    }
    let stdin = match first.body.is_empty() {
        true => Stdio::null(),
        false => File::open(input)?.into(),
    };
    command.stdin(stdin).stdout(Stdio::null());
    Ok(command)
}

/// What starts `mosquitto_sub`. Its lines are read by [`heard`].
pub(super) fn subscriber(program: &Path, port: u16, protocol: Protocol, filter: &str) -> Command {
    let mut command = Command::new(program.with_file_name("mosquitto_sub"));
    // `-d` says when it is subscribed. A topic may have blanks, so it stands last.
    command
        .args(arguments(port, protocol))
        .args(["-d", "-q", "1", "-t", filter])
        .args(["-F", "heard\t%r\t%x\t%C\t%P\t%t"]);
    command
}

/// Messages that one `mosquitto_pub` can send: lines of text to one topic, or a single message.
pub(super) fn groups(messages: &[Publish]) -> impl Iterator<Item = &[Publish]> {
    messages.chunk_by(|one, next| {
        let is_line = |message: &Publish| {
            !message.body.is_empty() && !message.body.iter().any(|byte| matches!(byte, b'\n' | 0))
        };
        let differs_in_body_only = Publish {
            body: one.body.clone(),
            ..next.clone()
        } == *one;
        differs_in_body_only && is_line(one) && is_line(next)
    })
}

fn arguments(port: u16, protocol: Protocol) -> [String; 6] {
    let version = match protocol {
        Protocol::V311 => "311",
        Protocol::V5 => "5",
    };
    [
        "-h",
        &HOST.to_string(),
        "-p",
        &port.to_string(),
        "-V",
        version,
    ]
    .map(str::to_owned)
}

fn properties(command: &mut Command, message: &Publish) {
    let told = &message.properties;
    let mut tell = |name: &str, values: &[String]| {
        command.args(["-D", "publish", name]).args(values);
    };
    let text = |value: &Option<String>| value.clone().map(|value| vec![value]);
    let number = |value: Option<u32>| value.map(|value| vec![value.to_string()]);
    let one = [
        ("response-topic", text(&told.response_topic)),
        ("content-type", text(&told.content_type)),
        ("message-expiry-interval", number(told.message_expiry_s)),
        (
            "payload-format-indicator",
            number(told.payload_format.map(u32::from)),
        ),
        ("topic-alias", number(told.topic_alias.map(u32::from))),
    ];
    for (name, values) in one {
        if let Some(values) = values {
            tell(name, &values);
        }
    }
    for (name, value) in &told.user {
        tell("user-property", &[name.clone(), value.clone()]);
    }
}

pub(super) fn version(program: &Path) -> anyhow::Result<String> {
    let output = child::output(Command::new(program).arg("--version"), child::SHORT)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.split_whitespace().nth(2);
    Ok(version.context("mosquitto_pub says no version")?.to_owned())
}

/// A line of `mosquitto_sub`: retained, body, content type, user properties (`name:value` with blanks
/// between), topic.
pub(super) fn heard(line: &str) -> anyhow::Result<Heard> {
    let mut parts = line.split('\t').skip(1);
    let mut next = || parts.next().context("a part is missing").map(str::to_owned);
    let (retain, body, content_type, user, topic) = (next()?, next()?, next()?, next()?, next()?);
    unhex(&body)?;
    let pairs = user.split(' ').filter_map(|pair| pair.split_once(':'));
    Ok(Heard {
        topic,
        retain: retain == "1",
        content_type: Some(content_type).filter(|text| !text.is_empty()),
        user: pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tool_sends_lines_to_one_topic_and_everything_else_by_itself() {
        let plain = Publish::plain;
        let messages = [
            plain("a", b"1", 1),
            plain("a", b"2", 1),
            plain("a", b"", 1),
            plain("a", b"3", 1),
            plain("a", b"two\nlines", 1),
            plain("b", b"4", 1),
            plain("b", b"5", 0),
        ];
        let sizes: Vec<usize> = groups(&messages).map(<[Publish]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_line_of_the_tool_is_a_message() {
        let message = heard("heard\t0\t00ff\ttext/plain\ta:1 b:2\tplant/7/with blank").unwrap();
        assert_eq!(message.topic, "plant/7/with blank");
        assert_eq!(
            message.user,
            [("a".into(), "1".into()), ("b".into(), "2".into())]
        );
        assert_eq!((message.body.as_str(), message.retain), ("00ff", false));
        assert!(heard("heard\t0\tnot hexadecimal\t\t\tt").is_err());
    }
}

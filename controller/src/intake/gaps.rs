//! Where log lines of a node are missing: it numbers what it sends, from 1 up with each start of its
//! agent. Pure.

use std::collections::BTreeSet;

use haar_protocol::log::{GapCause, Level, LogGap, LogLine, Stream};

/// The line of a node that came last: its number, and its time by the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastLine {
    pub(crate) sequence: u64,
    pub(crate) time_ms: u64,
}

/// Compares lines that came with the one before them. None when they came before, or before others that
/// are there. Otherwise which of them is the last now, and what is missing before the first, if
/// anything.
pub(crate) fn follow(
    last: Option<LastLine>,
    lines: &[LogLine],
) -> Option<(LastLine, Option<LogGap>)> {
    let (first, newest) = (lines.first()?, lines.last()?);
    let next = LastLine {
        sequence: newest.sequence,
        time_ms: newest.time_ms,
    };
    let Some(last) = last else {
        return Some((next, None));
    };
    if next.sequence <= last.sequence && next.time_ms <= last.time_ms {
        return None;
    }
    let (lines, cause) = match first.sequence.checked_sub(last.sequence) {
        Some(1) => return Some((next, None)),
        Some(distance @ 2..) => (Some(distance - 1), GapCause::Transport),
        _ => (None, GapCause::Restart),
    };
    Some((next, Some(LogGap { lines, cause })))
}

/// A line for each microservice of `lines`, which go before them: it says what is missing there.
pub(crate) fn tell(gap: LogGap, lines: &[LogLine]) -> Vec<LogLine> {
    let Some(first) = lines.first() else {
        return Vec::new();
    };
    let (level, text) = match gap.lines {
        Some(count) => (
            Level::Warn,
            format!(
                "lines are missing here, {count} of all microservices of this node: they did not arrive"
            ),
        ),
        None => (
            Level::Info,
            "the agent has started again: lines that it had not sent are lost".to_owned(),
        ),
    };
    let names: BTreeSet<_> = lines.iter().map(|line| &line.name).collect();
    let count = names.len() as u64;
    // Each has a time of its own: number and time tell lines apart.
    let told = names.into_iter().zip(0..).map(|(name, index)| LogLine {
        name: name.clone(),
        sequence: first.sequence.saturating_sub(1),
        time_ms: first.time_ms.saturating_sub(count - index),
        level,
        stream: Stream::Agent,
        context: String::new(),
        text: text.clone(),
        gap: Some(gap),
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sequence: u64, time_ms: u64, microservice: &str) -> LogLine {
        serde_json::from_value(serde_json::json!({
            "application": "a", "microservice": microservice, "sequence": sequence,
            "time_ms": time_ms, "level": "info", "stream": "log", "text": ""
        }))
        .unwrap()
    }

    fn gap(last: (u64, u64), lines: &[LogLine]) -> Option<Option<LogGap>> {
        let (sequence, time_ms) = last;
        let last = LastLine { sequence, time_ms };
        follow(Some(last), lines).map(|(_, gap)| gap)
    }

    #[test]
    fn lines_that_follow_have_no_gap_and_those_that_are_missing_are_counted() {
        let lines = [line(8, 70, "m"), line(9, 71, "m")];
        let next = LastLine {
            sequence: 9,
            time_ms: 71,
        };
        assert_eq!(follow(None, &lines), Some((next, None)));
        assert_eq!(gap((7, 60), &lines), Some(None));
        let missing = LogGap {
            lines: Some(4),
            cause: GapCause::Transport,
        };
        assert_eq!(gap((3, 60), &lines), Some(Some(missing)));
        assert_eq!(follow(None, &[]), None);
    }

    #[test]
    fn lines_that_come_again_or_late_are_passed_over() {
        assert_eq!(gap((9, 71), &[line(8, 70, "m"), line(9, 71, "m")]), None);
        assert_eq!(gap((20, 90), &[line(8, 70, "m"), line(9, 71, "m")]), None);
    }

    #[test]
    fn a_restart_is_told_to_every_microservice_that_speaks_after_it() {
        let lines = [
            line(1, 100, "one"),
            line(2, 101, "two"),
            line(3, 102, "one"),
        ];
        let restart = gap((9, 71), &lines).unwrap().unwrap();
        assert_eq!((restart.lines, restart.cause), (None, GapCause::Restart));
        let told = tell(restart, &lines);
        let keys = told
            .iter()
            .map(|one| (one.name.microservice.as_str(), one.sequence, one.time_ms));
        let keys: Vec<_> = keys.collect();
        assert_eq!(keys, [("one", 0, 98), ("two", 0, 99)]);
    }
}

//! The recorder of the fleet-telemetry example, on a node with the role `recorder`: takes readings,
//! alerts and summaries on three inlets and writes one log line for each. The context of a line is
//! `reading`, `alert` or `summary`, its text compact JSON that begins with the node. The live table
//! of `haar demo` is made of these lines.
//!
//! Keeps count of every source, and says in a line of its own (context `statistics`) once a minute
//! how many messages came and how many were lost on their way: its routes are `live`.

mod statistics;

use std::time::Duration;

use fleet_types::{Alert, Reading, Summary};
use haar_guest::{Message, Microservice, Rejection, Tick, json, log, timers};
use serde::Serialize;
use statistics::Statistics;

const TIMER: &str = "statistics";
const STATISTICS_PERIOD: Duration = Duration::from_secs(60);

/// The recorder.
#[derive(Debug, Default)]
pub struct Recorder {
    statistics: Statistics,
}

/// A reading as a line: the node that it came from, then its values.
#[derive(Serialize)]
struct ReadingLine<'a> {
    node: &'a str,
    #[serde(flatten)]
    reading: &'a Reading,
}

/// A summary as a line: the node that made it, and its counts.
#[derive(Serialize)]
struct SummaryLine<'a> {
    node: &'a str,
    nodes: usize,
    readings: u64,
    alerts: u64,
    /// What is outside of its band now, as `NODE.QUANTITY`.
    outside: Vec<String>,
}

impl Microservice for Recorder {
    fn start(&mut self) -> Result<(), String> {
        Ok(timers::every(TIMER, STATISTICS_PERIOD)?)
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let node = &message.source.node;
        let (context, text) = match message.inlet.as_str() {
            "readings" => (
                "reading",
                json::text(&ReadingLine {
                    node,
                    reading: &message.json()?,
                }),
            ),
            "alerts" => ("alert", json::text(&message.json::<Alert>()?)),
            "summaries" => ("summary", json::text(&summary_line(node, &message.json()?))),
            other => {
                return Err(Rejection::discard(format!(
                    "the recorder has no inlet `{other}`"
                )));
            }
        };
        log::write(log::Level::Info, context, &text);
        self.statistics.count(&message.source, message.sequence);
        Ok(())
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        log::write(
            log::Level::Debug,
            "statistics",
            &json::text(&self.statistics.totals()),
        );
        Ok(())
    }

    fn stop(&mut self) {
        log::write(
            log::Level::Info,
            "statistics",
            &json::text(&self.statistics.totals()),
        );
    }
}

fn summary_line<'a>(node: &'a str, summary: &Summary) -> SummaryLine<'a> {
    let outside = summary.nodes.iter().flat_map(|(name, node)| {
        let quantities = node
            .quantities
            .iter()
            .filter(|(_, quantity)| quantity.outside);
        quantities.map(move |(quantity, _)| format!("{name}.{quantity}"))
    });
    SummaryLine {
        node,
        nodes: summary.nodes.len(),
        readings: summary.readings,
        alerts: summary.alerts,
        outside: outside.collect(),
    }
}

haar_guest::export!(Recorder);

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_types::Change;
    use haar_guest::testing::{Harness, LogLine, message};

    fn recorded(harness: &mut Harness<Recorder>, inlet: &str, body: &str) -> Vec<(String, String)> {
        harness.deliver(message(inlet, body)).unwrap();
        harness
            .logs()
            .into_iter()
            .map(|line| (line.context, line.text))
            .collect()
    }

    fn line(context: &str, text: &str) -> Vec<(String, String)> {
        vec![(context.to_owned(), text.to_owned())]
    }

    #[test]
    fn a_reading_is_one_line_with_its_node_in_front() {
        let lines = recorded(
            &mut Harness::new(),
            "readings",
            r#"{ "load": 0.5, "memory_total_bytes": 1024 }"#,
        );
        assert_eq!(
            lines,
            line(
                "reading",
                r#"{"node":"node-1","load":0.5,"memory_total_bytes":1024}"#
            )
        );
    }

    #[test]
    fn an_alert_is_one_line_about_the_node_that_it_names() {
        let alert = r#"{"node":"sensor","quantity":"load","change":"left","value":9.0,"mean":0.2,"band":0.5}"#;
        assert_eq!(
            recorded(&mut Harness::new(), "alerts", alert),
            line("alert", alert)
        );
    }

    #[test]
    fn a_summary_is_one_line_with_counts_and_what_is_outside() {
        let summary = r#"{"readings":10,"alerts":1,"nodes":{"sensor":{"readings":10,"quantities":{
            "load":{"least":0.1,"greatest":9.0,"mean":0.2,"outside":true},
            "cpu_percent":{"least":1.0,"greatest":2.0,"mean":1.5,"outside":false}}}}}"#;
        let expected =
            r#"{"node":"node-1","nodes":1,"readings":10,"alerts":1,"outside":["sensor.load"]}"#;
        assert_eq!(
            recorded(&mut Harness::new(), "summaries", summary),
            line("summary", expected)
        );
    }

    #[test]
    fn a_message_that_is_not_of_its_inlets_type_is_discarded_without_a_line() {
        let mut harness = Harness::<Recorder>::new();
        for inlet in ["readings", "alerts", "summaries", "others"] {
            let rejection = harness.deliver(message(inlet, "no json")).unwrap_err();
            assert!(matches!(rejection, Rejection::Discard(_)));
        }
        assert_eq!(harness.logs(), []);
    }

    #[test]
    fn what_was_lost_is_counted_and_said_with_the_timer() {
        let mut harness = Harness::<Recorder>::new();
        for sequence in [4, 5, 8] {
            harness
                .deliver(Message {
                    sequence,
                    ..message("readings", "{}")
                })
                .unwrap();
        }
        harness.logs();
        harness.tick(TIMER).unwrap();
        let expected = LogLine {
            level: log::Level::Debug,
            context: "statistics".to_owned(),
            text: r#"{"sources":1,"messages":3,"missing":2}"#.to_owned(),
        };
        assert_eq!(harness.logs(), [expected]);
    }

    /// In the order in which they come from the outlets, with what the types make of them.
    #[test]
    fn what_the_others_publish_becomes_one_line_each() {
        let alert = Alert {
            node: "sensor".to_owned(),
            quantity: "load".to_owned(),
            change: Change::Returned,
            value: 0.5,
            mean: 0.25,
            band: 1.0,
        };
        let bodies = [
            (
                "readings",
                json::text(&Reading {
                    cpu_percent: Some(12.5),
                    ..Reading::default()
                }),
            ),
            ("alerts", json::text(&alert)),
            ("summaries", json::text(&Summary::default())),
        ];
        let mut harness = Harness::<Recorder>::new();
        for (inlet, body) in bodies {
            harness.deliver(message(inlet, body)).unwrap();
        }
        let lines: Vec<String> = harness
            .logs()
            .into_iter()
            .map(|line| format!("{} {}", line.context, line.text))
            .collect();
        let expected = [
            r#"reading {"node":"node-1","cpu_percent":12.5}"#,
            r#"alert {"node":"sensor","quantity":"load","change":"returned","value":0.5,"mean":0.25,"band":1.0}"#,
            r#"summary {"node":"node-1","nodes":0,"readings":0,"alerts":0,"outside":[]}"#,
        ];
        assert_eq!(lines, expected);
    }
}

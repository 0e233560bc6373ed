//! The blocks of the demo's page, as lines.

use console::Style;
use haar_protocol::ids::Name;
use haar_protocol::rest::Microservice;
use serde_json::Value;

use super::super::graph::graph;
use super::super::spike::{Shown, State};
use super::super::watch::{Message, NodeView, View};
use super::super::words;
use super::look::Look;
use super::{NAME_MOST, rate, running};
use crate::commands::get;
use crate::output;

/// Columns of numbers.
const NUMBER: usize = 9;

/// Alerts of one node within this time share a row, in milliseconds.
const TOGETHER_MS: u64 = 1_000;

/// What the blocks are made of.
pub(super) struct Page<'a> {
    pub(super) view: &'a View,
    pub(super) look: Look,
    pub(super) columns: usize,
    /// Columns of the names of nodes.
    pub(super) node_columns: usize,
}

impl Page<'_> {
    pub(super) fn title(&self) -> String {
        let view = self.view;
        let rate = rate(view);
        let (running, wanted) = (running(view), view.microservices.len());
        let style = match running == wanted {
            true => Style::new().green(),
            false => Style::new().red(),
        };
        format!(
            "{} · {} nodes · {} · {rate:.1} messages/s · {} s",
            self.look.paint(Style::new().bold(), "Haar demo"),
            view.nodes.len(),
            self.look.paint(style, format!("{running} of {wanted} run")),
            view.watched.as_secs()
        )
    }

    /// Their heading, which also says what the spike does, and the newest ones.
    pub(super) fn alerts(&self, spike: Shown, rows: usize, has_keys: bool) -> Vec<String> {
        let alerts = &self.view.recorded.alerts;
        let notice = match spike.state {
            State::Learning {
                readings,
                is_wanted: false,
            } => {
                format!("learning what is usual: {readings} readings more")
            }
            State::Learning {
                readings,
                is_wanted: true,
            } => {
                format!("your spike waits: {readings} readings more to learn")
            }
            State::Ready if alerts.count() > 0 => String::new(),
            State::Ready if has_keys => {
                format!("press s for a spike on {}", spike.node)
            }
            State::Ready => "keep a processor busy: yes > /dev/null".into(),
            State::Sent(since) => format!(
                "spike: sampler on {} reconfigured {} s ago",
                spike.node,
                since.as_secs()
            ),
        };
        let mut lines = vec![format!(
            "{}  {}",
            self.heading(&format!("ALERTS {}", alerts.count())),
            self.look.paint(Style::new().yellow(), notice)
        )];
        if alerts.latest.is_empty() {
            lines.push(self.look.paint(Style::new().dim(), "   none yet"));
        }
        for (message, texts) in together(alerts.latest.iter().rev(), rows) {
            let age = match self.view.now_ms.saturating_sub(message.time_ms) / 1_000 {
                0 => "now".to_owned(),
                seconds => format!("{} ago", output::duration(seconds * 1_000)),
            };
            let (sign, style) = match words::is_left(&message.value) {
                true => ("!", Style::new().red().bold()),
                false => (" ", Style::new().green()),
            };
            let node = output::printable(words::text(&message.value, "node"));
            let text = format!(
                "{} {}",
                self.look.pad(&node, self.node_columns),
                texts.join("; ")
            );
            lines.push(format!(
                "{sign} {age:>NUMBER$}  {}",
                self.look.paint(style, text)
            ));
        }
        lines.resize(1 + rows, String::new());
        lines
    }

    pub(super) fn nodes(&self, rows: usize) -> Vec<String> {
        const VALUE: usize = 6;
        let has_memory = self.columns >= 70;
        let taken =
            self.node_columns + 2 * (2 + VALUE + 1) + if has_memory { 2 + NUMBER } else { 0 };
        let columns = self.columns.saturating_sub(taken) / 2;
        let histories = |name: &'static str| -> Vec<Vec<f64>> {
            let of = |seen: &NodeView| self.history(seen.node.name.as_str(), name);
            self.view.nodes.iter().map(of).collect()
        };
        let (processors, loads) = (histories("cpu_percent"), histories("load"));
        let shown = |values: &Vec<f64>| {
            values[values.len().saturating_sub(columns)..]
                .iter()
                .copied()
                .fold(1.0, f64::max)
        };
        let most_load = loads.iter().map(shown).fold(1.0, f64::max);

        let graph_columns = columns + 1;
        let mut heading = format!(
            "{:name$}  {:>VALUE$} {:graph_columns$} {:>VALUE$} {:columns$}",
            "NODE",
            "CPU %",
            "",
            "LOAD",
            "",
            name = self.node_columns
        );
        if has_memory {
            heading += &format!("  {:>NUMBER$}", "AGENT");
        }
        let mut lines = vec![self.heading(heading.trim_end())];
        for ((seen, processor), load) in self.view.nodes.iter().zip(&processors).zip(&loads) {
            let part = |values: &[f64], quantity: &str, most: f64, digits: usize| {
                let style = match self.is_outside(seen.node.name.as_str(), quantity) {
                    true => Style::new().red().bold(),
                    false => Style::new().cyan(),
                };
                let value = values
                    .last()
                    .map_or("?".into(), |value| format!("{value:.digits$}"));
                let graphs = graph(values, most, rows, columns, self.look.is_unicode);
                let texts = graphs.into_iter().enumerate().map(move |(row, graph)| {
                    let value = if row + 1 == rows { value.as_str() } else { "" };
                    self.look
                        .paint(style.clone(), format!("{value:>VALUE$} {graph}"))
                });
                texts.collect::<Vec<_>>()
            };
            let processor = part(processor, "cpu_percent", 100.0, 0);
            let load = part(load, "load", most_load, 1);
            for row in 0..rows {
                let is_last = row + 1 == rows;
                let (name, memory) = match is_last {
                    true => self.node(seen),
                    false => (" ".repeat(self.node_columns), String::new()),
                };
                let mut line = format!("{name}  {}  {}", processor[row], load[row]);
                if has_memory && is_last {
                    line += &format!("  {memory:>NUMBER$}");
                }
                lines.push(line);
            }
        }
        lines
    }

    /// Name, and memory of the agent or what is wrong.
    fn node(&self, seen: &NodeView) -> (String, String) {
        let name = self.look.pad(seen.node.name.as_str(), self.node_columns);
        match seen.node.health.is_healthy() {
            true => (
                self.look.paint(Style::new().green(), name),
                seen.resident_bytes.map_or("?".into(), output::bytes),
            ),
            false => (
                self.look.paint(Style::new().red().bold(), name),
                self.look.fit(&get::node_state(&seen.node), NUMBER),
            ),
        }
    }

    pub(super) fn microservices(&self) -> Vec<String> {
        let mut groups: Vec<(&Name, Vec<&Microservice>)> = Vec::new();
        for one in &self.view.microservices {
            let name = &one.name.microservice;
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, instances)) => instances.push(one),
                None => groups.push((name, vec![one])),
            }
        }
        let rows = groups.into_iter().map(|(name, instances)| {
            let count =
                |of: fn(&Microservice) -> u64| instances.iter().map(|one| of(one)).sum::<u64>();
            let calls = count(|one| one.status.as_ref().map_or(0, |status| status.calls));
            let failures = count(|one| one.status.as_ref().map_or(0, |status| status.failures));
            let places: Vec<String> = instances.iter().map(|one| self.place(one)).collect();
            (
                name.to_string(),
                places.join(", "),
                [calls, failures].map(|count| count.to_string()),
            )
        });
        self.table(
            ["MICROSERVICE", "RUNS ON"],
            ["CALLS", "FAILURES"],
            rows.collect(),
        )
    }

    fn place(&self, one: &Microservice) -> String {
        match one.health.is_healthy() {
            true => self.look.paint(Style::new().green(), one.node.as_str()),
            false => {
                let text = format!("{} ({})", one.node, get::state(one));
                self.look.paint(Style::new().red().bold(), text)
            }
        }
    }

    pub(super) fn routes(&self) -> Vec<String> {
        let rows = self.view.routes.iter().map(|seen| {
            let (from, to) = (
                output::printable(&seen.route.from),
                output::printable(&seen.route.to),
            );
            let rate = format!("{:.1}", seen.rate);
            (
                from,
                format!("→ {to}"),
                [rate, seen.route.dropped.to_string()],
            )
        });
        self.table(["ROUTE", ""], ["/SECOND", "DROPPED"], rows.collect())
    }

    /// A table as wide as the page: names, what belongs to them, and two numbers at the right.
    fn table(
        &self,
        heading: [&str; 2],
        numbers: [&str; 2],
        rows: Vec<(String, String, [String; 2])>,
    ) -> Vec<String> {
        let longest = rows
            .iter()
            .map(|(name, _, _)| name.len())
            .max()
            .unwrap_or(0);
        let name_columns = longest.clamp(heading[0].len(), NAME_MOST.max(self.columns / 4));
        let taken = name_columns + 2 + 2 * (1 + NUMBER);
        let columns = self.columns.saturating_sub(taken).min(60);
        let line = |name: &str, text: &str, [first, second]: [&str; 2]| {
            let (name, text) = (
                self.look.pad(name, name_columns),
                self.look.pad(text, columns),
            );
            format!("{name}  {text} {first:>NUMBER$} {second:>NUMBER$}")
        };
        let mut lines = vec![self.heading(&line(heading[0], heading[1], numbers))];
        for (name, text, [first, second]) in &rows {
            lines.push(line(name, text, [first, second]));
        }
        lines
    }

    /// What another terminal can do; none when it does not fit.
    pub(super) fn elsewhere(&self) -> Option<String> {
        let text = format!("haar --context {} get nodes", self.view.context);
        let fits = console::measure_text_width(&text) <= self.columns;
        fits.then(|| {
            self.look
                .paint(Style::new().dim(), output::printable(&text))
        })
    }

    pub(super) fn bottom(&self, spike: Shown, has_keys: bool) -> String {
        let key = |key: &str| self.look.paint(Style::new().reverse(), format!("[{key}]"));
        match has_keys {
            true => format!("{} spike on {}   {} quit", key("s"), spike.node, key("q")),
            false => format!("{} quit", key("Ctrl-C")),
        }
    }

    fn heading(&self, text: &str) -> String {
        self.look.paint(Style::new().bold(), text)
    }

    fn history(&self, node: &str, quantity: &str) -> Vec<f64> {
        let messages = self.view.recorded.readings.by_node.get(node);
        let values = messages.into_iter().flatten();
        values
            .filter_map(|message| message.get(quantity)?.as_f64())
            .collect()
    }

    /// Whether the newest alert about a quantity says that it left its band.
    fn is_outside(&self, node: &str, quantity: &str) -> bool {
        let is_about = |alert: &Value| {
            words::text(alert, "node") == node && words::text(alert, "quantity") == quantity
        };
        let newest = self.view.recorded.alerts.latest.iter().rev();
        newest
            .map(|message| &message.value)
            .find(|alert| is_about(alert))
            .is_some_and(words::is_left)
    }
}

/// The first rows of alerts, with their words. What a node says within a second is one row, so that a
/// machine on which everything becomes unusual at once pushes nothing off the page.
fn together<'m>(
    alerts: impl Iterator<Item = &'m Message>,
    rows: usize,
) -> Vec<(&'m Message, Vec<String>)> {
    let mut found: Vec<(&Message, Vec<String>)> = Vec::new();
    for alert in alerts {
        let key = |one: &Message| {
            let node = words::text(&one.value, "node").to_owned();
            (node, words::is_left(&one.value))
        };
        let is_with = |one: &Message| {
            key(one) == key(alert) && one.time_ms.abs_diff(alert.time_ms) <= TOGETHER_MS
        };
        let text = words::alert(&alert.value);
        match found.iter().position(|(first, _)| is_with(first)) {
            Some(row) => found[row].1.push(text),
            None if found.len() < rows => found.push((alert, vec![text])),
            None => {}
        }
    }
    found
}

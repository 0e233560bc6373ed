//! How the demo looks: a page that fits the terminal, alerts first, and a single line where there is
//! no terminal. Pure: decides what has room; `blocks` makes it.

mod blocks;
mod look;
#[cfg(test)]
pub(super) mod tests;

use super::spike::Shown;
use super::watch::View;
use crate::output;
use crate::terminal::Size;
use blocks::Page;
pub(super) use look::Look;

/// Rows of alerts that are always there.
const ALERTS: usize = 3;
/// Rows of alerts on a large terminal.
const ALERTS_MOST: usize = 10;
/// Rows of a node's graphs on a large terminal.
const GRAPH_ROWS_MOST: usize = 3;
/// Columns of names.
const NAME_MOST: usize = 20;
/// The page: not more rows and columns than there are. What does not fit is left out, the least
/// important first.
pub(super) fn page(
    view: &View,
    spike: Shown,
    size: Size,
    look: Look,
    has_keys: bool,
) -> Vec<String> {
    let names = view.nodes.iter().map(|seen| seen.node.name.as_str().len());
    let page = Page {
        view,
        look,
        columns: size.columns,
        node_columns: names
            .max()
            .unwrap_or(0)
            .clamp(4, NAME_MOST.min(size.columns / 5).max(4)),
    };
    let (microservices, routes) = (page.microservices(), page.routes());
    let elsewhere = page.elsewhere();

    // Title, alerts and keys are always there, each with an empty row where it looks better.
    let mut left = size.rows.saturating_sub(1 + 1 + 1 + ALERTS + 1);
    let mut take = |rows: usize| {
        let fits = rows <= left;
        left -= if fits { rows } else { 0 };
        fits
    };
    let has_nodes = take(1 + 1 + view.nodes.len());
    let has_routes = take(1 + routes.len());
    let has_microservices = take(1 + microservices.len());
    let has_elsewhere = elsewhere.is_some() && take(1);
    let mut graph_rows = 1;
    while has_nodes && graph_rows < GRAPH_ROWS_MOST && take(view.nodes.len().max(1)) {
        graph_rows += 1;
    }
    let mut alert_rows = ALERTS;
    while alert_rows < ALERTS_MOST && take(1) {
        alert_rows += 1;
    }

    let mut lines = vec![page.title(), String::new()];
    lines.extend(page.alerts(spike, alert_rows, has_keys));
    for (has_block, block) in [
        (has_nodes, page.nodes(graph_rows)),
        (has_microservices, microservices),
        (has_routes, routes),
    ] {
        if has_block {
            lines.push(String::new());
            lines.extend(block);
        }
    }
    let last = [
        elsewhere.filter(|_| has_elsewhere),
        Some(page.bottom(spike, has_keys)),
    ];
    let last: Vec<String> = last.into_iter().flatten().collect();
    lines.resize(size.rows.saturating_sub(last.len()), String::new());
    lines.extend(last);
    lines.truncate(size.rows);
    let fitting = |line: &String| look.fit(&look.signs(line), size.columns);
    lines.iter().map(fitting).collect()
}

/// The whole state in one line.
pub(super) fn line(view: &View) -> String {
    let running = running(view);
    let rate = rate(view);
    let resident: u64 = view
        .nodes
        .iter()
        .filter_map(|node| node.resident_bytes)
        .sum();
    let recorded = &view.recorded;
    format!(
        "{:>4} s: {running} of {} run; {rate:.1} messages/s; {} readings, {} alerts, {} summaries; agents {}",
        view.watched.as_secs(),
        view.microservices.len(),
        recorded.readings.count(),
        recorded.alerts.count(),
        recorded.summaries.count(),
        output::bytes(resident)
    )
}

fn running(view: &View) -> usize {
    let healthy = view
        .microservices
        .iter()
        .filter(|one| one.health.is_healthy());
    healthy.count()
}

/// Messages in a second, over all routes. From 0 up: the sum of nothing would be -0.
fn rate(view: &View) -> f64 {
    view.routes.iter().fold(0.0, |sum, route| sum + route.rate)
}

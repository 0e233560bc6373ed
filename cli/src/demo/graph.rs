//! Values over time as text: one column for each, the newest at the right. Pure.

/// The eight levels of a cell.
const UNICODE: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// Draws the last values into `rows` lines of `columns` cells, from 0 at the bottom to `most`. A
/// value is always seen: 0 has the lowest level.
pub(super) fn graph(
    values: &[f64],
    most: f64,
    rows: usize,
    columns: usize,
    is_unicode: bool,
) -> Vec<String> {
    let levels = if is_unicode { UNICODE } else { ASCII };
    let shown = &values[values.len().saturating_sub(columns)..];
    let heights: Vec<usize> = shown
        .iter()
        .map(|value| height(value / most, rows * levels.len()))
        .collect();
    (0..rows)
        .rev()
        .map(|row| {
            let cells =
                heights
                    .iter()
                    .map(|height| match height.saturating_sub(row * levels.len()) {
                        0 => ' ',
                        level => levels[level.min(levels.len()) - 1],
                    });
            let empty = std::iter::repeat_n(' ', columns.saturating_sub(shown.len()));
            empty.chain(cells).collect()
        })
        .collect()
}

/// The part of `levels` that is nearest; one at least.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a float that is out of range, or none, becomes the nearest number"
)]
fn height(part: f64, levels: usize) -> usize {
    ((part * levels as f64).round() as usize).clamp(1, levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_values_are_at_the_right() {
        let values = [9.0, 0.0, 1.0, 4.0, 8.0];
        assert_eq!(graph(&values, 8.0, 1, 4, true), ["▁▁▄█"]);
        assert_eq!(graph(&values[3..], 8.0, 1, 4, false), ["  -#"]);
        assert_eq!(graph(&[], 8.0, 1, 3, true), ["   "]);
        assert_eq!(graph(&values, 8.0, 1, 0, true), [""]);
    }

    #[test]
    fn a_higher_graph_is_finer() {
        assert_eq!(
            graph(&[0.0, 4.0, 5.0, 8.0], 8.0, 2, 4, true),
            ["  ▂█", "▁███"]
        );
    }

    #[test]
    fn values_that_are_no_numbers_are_drawn_as_nothing() {
        let values = [f64::NAN, f64::INFINITY, -1.0];
        assert_eq!(graph(&values, 8.0, 1, 3, true), ["▁█▁"]);
        assert_eq!(graph(&[0.0], 0.0, 1, 1, true), ["▁"]);
    }
}

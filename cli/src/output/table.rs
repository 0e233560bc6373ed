//! Tables for people.

use std::fmt::Write as _;

/// Rows under a header, in columns as wide as they need.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &'static [&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// The same table with further columns, which wide tables have.
    pub(crate) fn with(mut self, columns: &'static [&'static str]) -> Self {
        self.header.extend(columns);
        self
    }

    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        debug_assert_eq!(
            cells.len(),
            self.header.len(),
            "a row has a cell for each column"
        );
        self.rows.push(cells);
    }

    /// Takes away the first column.
    pub(crate) fn drop_first(&mut self) {
        self.header.remove(0);
        for row in &mut self.rows {
            row.remove(0);
        }
    }

    /// The table, every line with its end; `none` when it has no rows.
    pub(crate) fn render(&self, none: &str) -> String {
        if self.rows.is_empty() {
            return format!("{none}\n");
        }
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| width(&row[column]));
                cells.chain([self.header[column].len()]).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (cell, column_width) in row.iter().zip(&widths) {
                let padding = column_width.saturating_sub(width(cell)) + 2;
                let _ = write!(line, "{cell}{:padding$}", ""); // writing to a string never fails
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn width(cell: &str) -> usize {
    console::measure_text_width(cell)
}

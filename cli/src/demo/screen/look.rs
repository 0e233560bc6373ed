//! What the terminal can show: colours, signs, and text in so many columns.

use console::Style;

use crate::config;

/// What the terminal can show.
#[derive(Debug, Clone, Copy)]
pub(in crate::demo) struct Look {
    pub(in crate::demo) has_colours: bool,
    pub(in crate::demo) is_unicode: bool,
}

impl Look {
    /// Colours on a terminal without `NO_COLOR`; signs of Unicode where the locale has them.
    pub(in crate::demo) fn here() -> Self {
        Self {
            has_colours: console::colors_enabled(),
            is_unicode: config::is_utf8(),
        }
    }

    pub(super) fn paint(self, style: Style, text: impl AsRef<str>) -> String {
        let style = style.force_styling(self.has_colours);
        style.apply_to(text.as_ref()).to_string()
    }

    /// What is drawn, with a sign of one column for each that the terminal does not have.
    pub(super) fn signs(self, text: &str) -> String {
        let sign = |sign| match sign {
            '\t' => ' ',
            '·' if !self.is_unicode => '-',
            '→' if !self.is_unicode => '>',
            sign => sign,
        };
        text.chars().map(sign).collect()
    }

    /// The text in exactly so many columns.
    pub(super) fn pad(self, text: &str, columns: usize) -> String {
        console::pad_str(
            &self.fit(text, columns),
            columns,
            console::Alignment::Left,
            None,
        )
        .into_owned()
    }

    /// The text in so many columns at most.
    pub(super) fn fit(self, text: &str, columns: usize) -> String {
        let tail = if self.is_unicode { "…" } else { "~" };
        console::truncate_str(text, columns, if columns == 0 { "" } else { tail }).into_owned()
    }
}

//! The run as JUnit XML, which every build server reads. Written here: it is a page of code, and
//! the library for it would bring a dozen crates.

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::{Outcome, count};

/// The document.
pub(crate) fn document(outcomes: &[Outcome], time: Duration) -> String {
    let (failed, skipped) = count(outcomes);
    let sums = format!(
        "name=\"haar-conformance\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\" time=\"{:.3}\"",
        outcomes.len(),
        time.as_secs_f64()
    );
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {sums}>\n  <testsuite {sums}>\n"
    );
    for outcome in outcomes {
        // Writing to a text can't fail.
        let _ = test_case(&mut text, outcome);
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn test_case(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    writeln!(
        text,
        "    <testcase name=\"{}\" classname=\"haar-conformance\" time=\"{:.3}\">",
        escaped(outcome.case.name),
        outcome.time.as_secs_f64()
    )?;
    writeln!(text, "      <properties>")?;
    let ids = outcome.case.requirements.iter();
    let requirements = ids.map(|id| ("requirement".to_owned(), (*id).to_owned()));
    let figures = outcome.figures.iter();
    let figures = figures.map(|(name, value)| (name.clone(), format!("{value:.3}")));
    for (name, value) in requirements.chain(figures) {
        let (name, value) = (escaped(&name), escaped(&value));
        writeln!(
            text,
            "        <property name=\"{name}\" value=\"{value}\"/>"
        )?;
    }
    writeln!(text, "      </properties>")?;
    if let Some(why) = outcome.skipped() {
        writeln!(text, "      <skipped message=\"{}\"/>", escaped(why))?;
    }
    if let Some(failure) = outcome.failure() {
        let first = failure.lines().next().unwrap_or_default();
        let whole = format!("{failure}\n{}", outcome.diagnosis);
        writeln!(
            text,
            "      <failure message=\"{}\">{}</failure>",
            escaped(first),
            escaped(&whole)
        )?;
    }
    if !outcome.notes.is_empty() {
        let notes = escaped(&outcome.notes.join("\n"));
        writeln!(text, "      <system-out>{notes}</system-out>")?;
    }
    writeln!(text, "    </testcase>")
}

/// A text as XML may hold it (Extensible Markup Language 1.0, sections 2.2 and 2.4).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;
    use crate::report::Verdict;

    #[test]
    fn what_a_failure_says_does_not_break_the_document() {
        let outcome = Outcome {
            case: cases::all().next().unwrap(),
            time: Duration::from_millis(1500),
            verdict: Verdict::Failed("1 < 2 && \"x\"\u{1b}[2J\nsecond line".into()),
            diagnosis: "<status>".into(),
            notes: vec!["a & b".into()],
            figures: vec![("p99_ratio".into(), 1.25)],
        };
        let skipped = Outcome {
            case: cases::all().next().unwrap(),
            time: Duration::ZERO,
            verdict: Verdict::Skipped("no <compiler>".into()),
            diagnosis: String::new(),
            notes: Vec::new(),
            figures: Vec::new(),
        };
        let text = document(&[outcome, skipped], Duration::from_secs(2));
        assert!(
            text.contains("tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"1\""),
            "{text}"
        );
        assert!(
            text.contains("<skipped message=\"no &lt;compiler&gt;\"/>"),
            "{text}"
        );
        assert!(
            text.contains("message=\"1 &lt; 2 &amp;&amp; &quot;x&quot;\u{fffd}[2J\""),
            "{text}"
        );
        assert!(
            text.contains("<property name=\"p99_ratio\" value=\"1.250\"/>"),
            "{text}"
        );
        assert!(
            text.contains("second line\n&lt;status&gt;</failure>"),
            "{text}"
        );
    }
}

//! What of a component is called. The site asks at push and at apply: a microservice of which nothing
//! is ever called would only look as if it ran.

/// The interfaces that an agent calls, without their patch versions.
const CALLED: [&str; 3] = [
    "haar:local/handler@0.1.",
    "haar:local/lifecycle@0.1.",
    "haar:local/ticks@0.1.",
];

/// Why nothing of a component with these exports would ever be called, for people; none when something
/// is, or when it exports nothing at all and so promises nothing.
pub fn never_called(exports: &[String]) -> Option<String> {
    let is_called = |export: &String| CALLED.iter().any(|called| export.starts_with(called));
    if exports.is_empty() || exports.iter().any(is_called) {
        return None;
    }
    let has = |name: &str| exports.iter().any(|export| export.starts_with(name));
    let what = if has("wasi:cli/run@") {
        "is a command (it exports `wasi:cli/run`, a `main`), and no agent of this release runs commands"
            .to_owned()
    } else if has("wasi:http/") {
        "is an HTTP handler, and no agent of this release serves HTTP".to_owned()
    } else {
        format!(
            "exports only `{}`, which no agent calls",
            exports.join("`, `")
        )
    };
    Some(what)
}

/// What to do about it.
pub const EXPORTS_HINT: &str = "export `haar:local/handler` to receive messages, or `haar:local/lifecycle` or `haar:local/ticks`, in version 0.1";

#[cfg(test)]
mod tests {
    use super::*;

    fn said(exports: &[&str]) -> Option<String> {
        let exports: Vec<String> = exports.iter().map(|export| (*export).to_owned()).collect();
        never_called(&exports)
    }

    #[test]
    fn a_component_is_called_by_any_of_our_interfaces() {
        assert_eq!(said(&["haar:local/handler@0.1.0"]), None);
        assert_eq!(
            said(&["wasi:cli/run@0.2.6", "haar:local/ticks@0.1.3"]),
            None
        );
        assert_eq!(said(&[]), None);
    }

    #[test]
    fn one_that_is_never_called_is_told_what_it_is() {
        let command = said(&["wasi:cli/run@0.2.6"]).unwrap();
        assert!(command.contains("is a command"), "{command}");
        let http = said(&["wasi:http/incoming-handler@0.2.0"]).unwrap();
        assert!(http.contains("HTTP handler"), "{http}");
        let newer = said(&["haar:local/handler@0.2.0", "run"]).unwrap();
        assert!(
            newer.contains("`haar:local/handler@0.2.0`, `run`"),
            "{newer}"
        );
    }
}

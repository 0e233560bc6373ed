//! A module as `haar describe` shows it: what it is, who has signed it, and what the controller has
//! compiled of it.

use haar_protocol::ids::Name;
use haar_protocol::rest::{Module, ModuleCode};

use crate::output::{self, facts};

/// A module, and what the controller has compiled of it.
#[derive(serde::Serialize)]
pub(super) struct ModuleWithCode {
    #[serde(flatten)]
    pub(super) module: Module,
    pub(super) code: Vec<ModuleCode>,
}

/// Everything about a module, for people.
pub(super) fn described(ModuleWithCode { module, code }: &ModuleWithCode) -> String {
    let publishers: Vec<&str> = module.publishers.iter().map(Name::as_str).collect();
    let list = |names: &[String]| {
        if names.is_empty() {
            "(none)".to_owned()
        } else {
            output::printable(&names.join(", "))
        }
    };
    let about = facts(&[
        (
            "Module",
            format!("{}@{}", module.name, output::printable(&module.version)),
        ),
        ("Digest", module.digest.to_string()),
        ("Size", output::bytes(module.bytes)),
        (
            "Publishers",
            if publishers.is_empty() {
                "(none that is trusted now)".into()
            } else {
                publishers.join(", ")
            },
        ),
        ("Pushed", output::timestamp(module.pushed_ms)),
        ("Imports", list(&module.imports)),
        ("Exports", list(&module.exports)),
    ]);
    let mut table = output::Table::new(&["TARGET", "ENGINE", "SIZE"]);
    for one in code {
        table.row([
            output::printable(&one.target),
            one.engine.get(..12).unwrap_or_default().to_owned(),
            match (
                one.packed_bytes,
                one.refused.as_ref().or(one.progress.as_ref()),
            ) {
                (Some(bytes), _) => output::bytes(bytes),
                (None, Some(why)) => output::printable(why),
                (None, None) => String::new(),
            },
        ]);
    }
    format!(
        "{about}\n{}",
        table.render("Not compiled yet: no node has asked for it.")
    )
}

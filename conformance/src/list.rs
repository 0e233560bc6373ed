//! `haar-conformance list`: what is promised, and what proves it.

use serde_json::json;

use crate::cases;
use crate::report::Format;
use crate::requirements::{Proof, Requirement};

/// Show the requirements and the cases
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How to write them: `table` for people, `json` for programs
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// Only requirements and cases with this text in an id or a name
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
}

/// Runs `list`.
pub(crate) fn list(arguments: &Arguments, requirements: &[Requirement]) -> anyhow::Result<bool> {
    let requirements: Vec<&Requirement> = requirements
        .iter()
        .filter(|one| matches(one, &arguments.filter))
        .collect();
    let cases: Vec<_> = cases::all()
        .filter(|case| cases::matches(case, &arguments.filter))
        .collect();
    if arguments.output == Format::Json {
        let requirements: Vec<_> = requirements
            .iter()
            .map(|one| match &one.proof {
                Proof::Cases(cases) => json!({ "id": one.id, "text": one.text, "cases": cases }),
                Proof::Pending(step) => json!({ "id": one.id, "text": one.text, "pending": step }),
            })
            .collect();
        let cases: Vec<_> = cases
            .iter()
            .map(|case| {
                let guests: Vec<_> = case.guests.iter().map(|guest| guest.name()).collect();
                json!({ "name": case.name, "requirements": case.requirements, "guests": guests })
            })
            .collect();
        let all = json!({ "requirements": requirements, "cases": cases });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(true);
    }
    for one in &requirements {
        let proof = match &one.proof {
            Proof::Cases(cases) => cases.join(", "),
            Proof::Pending(step) => format!("pending: {step}"),
        };
        println!("{:<12} {}\n{:13}{proof}", one.id, one.text, "");
    }
    let pending = requirements
        .iter()
        .filter(|one| matches!(one.proof, Proof::Pending(_)))
        .count();
    println!(
        "\n{} requirements, {pending} of them pending; {} cases",
        requirements.len(),
        cases.len()
    );
    Ok(true)
}

fn matches(requirement: &Requirement, filter: &str) -> bool {
    let is_in_cases = match &requirement.proof {
        Proof::Cases(cases) => cases.iter().any(|name| name.contains(filter)),
        Proof::Pending(_) => false,
    };
    requirement.id.contains(filter) || is_in_cases
}

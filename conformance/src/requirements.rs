//! Reads REQUIREMENTS.md, and checks that requirements, cases and guests belong together: nothing
//! is promised without a case or a reason why there is none yet, and nothing runs that proves
//! nothing.

use std::collections::BTreeSet;

use anyhow::bail;
use haar_conformance_artifacts::Guest;

use crate::cases;

const TEXT: &str = include_str!("../REQUIREMENTS.md");
/// What stands in the place of cases when there is none yet.
const PENDING: &str = "pending: ";

/// One promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// Such as `R-LIMIT-03`.
    pub(crate) id: String,
    /// The promise, in one sentence.
    pub(crate) text: String,
    /// What proves it.
    pub(crate) proof: Proof,
}

/// How a requirement is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By these cases.
    Cases(Vec<String>),
    /// Not yet; what brings it.
    Pending(String),
}

/// All requirements, checked against the cases.
///
/// # Errors
/// With everything that does not fit together.
pub(crate) fn checked() -> anyhow::Result<Vec<Requirement>> {
    let requirements = parse(TEXT)?;
    let problems = problems(&requirements);
    if !problems.is_empty() {
        bail!(
            "requirements, cases and guests do not fit together:\n  {}",
            problems.join("\n  ")
        );
    }
    Ok(requirements)
}

/// Reads the rows `| R-… | sentence | cases |` of the tables.
fn parse(text: &str) -> anyhow::Result<Vec<Requirement>> {
    let mut requirements = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if !line.starts_with("| R-") {
            continue;
        }
        let number = index + 1;
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, sentence, proof] = cells[..] else {
            bail!(
                "REQUIREMENTS.md, line {number}: a requirement has an id, a sentence and its cases"
            );
        };
        if !is_id(id) {
            bail!("REQUIREMENTS.md, line {number}: `{id}` is not an id such as `R-LIMIT-03`");
        }
        let proof = match proof.strip_prefix(PENDING) {
            Some(step) => Proof::Pending(step.to_owned()),
            None => Proof::Cases(cases_in(proof)),
        };
        requirements.push(Requirement {
            id: id.to_owned(),
            text: sentence.to_owned(),
            proof,
        });
    }
    Ok(requirements)
}

fn is_id(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], ["R", group, number]
        if !group.is_empty()
            && group.bytes().all(|byte| byte.is_ascii_uppercase())
            && number.len() == 2
            && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The names between backticks.
fn cases_in(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn problems(requirements: &[Requirement]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut ids = BTreeSet::new();
    for requirement in requirements {
        let id = &requirement.id;
        if !ids.insert(id.as_str()) {
            problems.push(format!("{id} stands twice in REQUIREMENTS.md"));
        }
        if requirement.text.is_empty() {
            problems.push(format!("{id} promises nothing"));
        }
        match &requirement.proof {
            Proof::Pending(step) if step.is_empty() => {
                problems.push(format!("{id} does not say what it waits for"));
            }
            Proof::Cases(names) if names.is_empty() => {
                problems.push(format!("{id} names no case and is not pending"));
            }
            Proof::Pending(_) | Proof::Cases(_) => {}
        }
    }
    let mut names = BTreeSet::new();
    for case in cases::all() {
        if !names.insert(case.name) {
            problems.push(format!("two cases are called `{}`", case.name));
        }
        for id in case.requirements {
            let requirement = requirements.iter().find(|one| one.id == *id);
            match requirement.map(|one| &one.proof) {
                None => problems.push(format!("`{}` proves {id}, which there is not", case.name)),
                Some(Proof::Cases(names)) if names.iter().any(|name| name == case.name) => {}
                Some(_) => problems.push(format!(
                    "`{}` proves {id}, which does not name it",
                    case.name
                )),
            }
        }
    }
    for requirement in requirements {
        let Proof::Cases(named) = &requirement.proof else {
            continue;
        };
        for name in named {
            let case = cases::all().find(|case| case.name == name);
            match case {
                None => problems.push(format!(
                    "{} names `{name}`, which is no case",
                    requirement.id
                )),
                Some(case) if case.requirements.contains(&requirement.id.as_str()) => {}
                Some(_) => problems.push(format!(
                    "{} names `{name}`, which does not prove it",
                    requirement.id
                )),
            }
        }
    }
    for guest in Guest::ALL {
        let cases = cases::of(*guest);
        if cases.is_empty() {
            problems.push(format!("no case runs the guest `{}`", guest.name()));
        }
        for case in cases {
            if !case.guests.contains(guest) {
                problems.push(format!(
                    "`{}` does not run the guest `{}`",
                    case.name,
                    guest.name()
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_cases_and_guests_belong_together() {
        if let Err(error) = checked() {
            panic!("{error:#}");
        }
    }

    #[test]
    fn a_row_that_is_not_a_requirement_is_refused() {
        assert!(parse("| R-MSG-1 | one digit | `x` |").is_err());
        assert!(parse("| R-MSG-01 | no cases |").is_err());
        let read =
            parse("| R-MSG-01 | it holds | `x`, `y` |\n| R-MSG-02 | later | pending: routes |");
        let proofs: Vec<Proof> = read.unwrap().into_iter().map(|one| one.proof).collect();
        assert_eq!(
            proofs,
            [
                Proof::Cases(vec!["x".into(), "y".into()]),
                Proof::Pending("routes".into())
            ]
        );
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let all = |text: &str| problems(&parse(text).unwrap()).join("\n");
        let text = all("| R-ZZZ-01 | sentence | `no_such_case` |\n| R-ZZZ-01 | again | |");
        assert!(
            text.contains("names `no_such_case`, which is no case"),
            "{text}"
        );
        assert!(text.contains("R-ZZZ-01 stands twice"), "{text}");
        assert!(
            text.contains("R-ZZZ-01 names no case and is not pending"),
            "{text}"
        );
        assert!(text.contains("which there is not"), "{text}");
    }
}

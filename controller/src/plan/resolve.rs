//! Whether the modules that a manifest names exist, are trusted, and fit what the manifest says of
//! them. All problems are found at once.

use std::collections::{BTreeMap, BTreeSet};

use haar_protocol::assignment::Publisher;
use haar_protocol::exports;
use haar_protocol::grants;
use haar_protocol::ids::{Digest, Name};
use haar_protocol::manifest::{Manifest, Microservice, ModuleReference, RouteEnd, nearest};
use haar_protocol::quantity::in_one_unit;

use super::{Fleet, Module, Placements, Problem};

/// The interface that a microservice with inlets exports, without its patch version.
const HANDLER: &str = "haar:local/handler@0.1.";
/// What to do about an import of which nothing else is known.
const NO_GRANT: &str = "no grant offers it: build the module without it";
/// Pairs of instances that the routes of one application may have.
const ROUTE_PAIRS_MAX: u64 = 100_000;

/// Finds the module of every microservice of `manifest` among `modules`.
///
/// # Errors
/// Every problem, in the order of the manifest; never empty.
pub(crate) fn resolve(
    manifest: &Manifest,
    modules: &[Module],
    publishers: &[Publisher],
) -> Result<BTreeMap<Name, Digest>, Vec<Problem>> {
    let mut resolved = BTreeMap::new();
    let mut problems = Vec::new();
    for microservice in &manifest.microservices {
        match find(&microservice.module, modules) {
            Some(module) => {
                problems.extend(check(microservice, module, publishers));
                resolved.insert(microservice.name.clone(), module.digest);
            }
            None => problems.push(unknown(microservice, modules)),
        }
    }
    if problems.is_empty() {
        Ok(resolved)
    } else {
        Err(problems)
    }
}

fn find<'m>(reference: &ModuleReference, modules: &'m [Module]) -> Option<&'m Module> {
    modules.iter().find(|module| match reference {
        ModuleReference::Version { name, version } => {
            &module.name == name && &module.version == version
        }
        ModuleReference::Digest(digest) => {
            &module.digest == digest || module.resigned.contains(digest)
        }
    })
}

fn unknown(microservice: &Microservice, modules: &[Module]) -> Problem {
    let reference = &microservice.module;
    let versions: Vec<String> = match reference {
        ModuleReference::Version { name, .. } => modules
            .iter()
            .filter(|module| &module.name == name)
            .map(Module::label)
            .take(5)
            .collect(),
        ModuleReference::Digest(_) => Vec::new(),
    };
    let near = match reference {
        ModuleReference::Version { name, .. } => nearest(
            name.as_str(),
            modules.iter().map(|module| module.name.as_str()),
        ),
        ModuleReference::Digest(_) => None,
    };
    let hint = if !versions.is_empty() {
        format!("there is {}", versions.join(", "))
    } else if let Some(near) = near {
        let labels: Vec<String> = modules
            .iter()
            .filter(|module| module.name.as_str() == near)
            .map(Module::label)
            .take(5)
            .collect();
        format!(
            "did you mean {}? otherwise push it first: `haar push FILE`",
            labels.join(" or ")
        )
    } else {
        "push it first: `haar push FILE`".to_owned()
    };
    Problem {
        code: "unknown_module",
        message: format!(
            "microservice `{}`: no module `{reference}` was pushed",
            microservice.name
        ),
        hint: Some(hint),
    }
}

fn check(microservice: &Microservice, module: &Module, publishers: &[Publisher]) -> Vec<Problem> {
    let (name, label) = (&microservice.name, module.label());
    let mut problems = Vec::new();
    if !publishers
        .iter()
        .any(|publisher| module.signers.contains(&publisher.key))
    {
        problems.push(Problem {
            code: "untrusted_module",
            message: format!(
                "microservice `{name}`: no publisher that is trusted now has signed `{label}`"
            ),
            hint: Some(
                "sign it with a key that is trusted (`haar sign`) and push it again, or trust its publisher again".into(),
            ),
        });
    }
    let lacking = grants::lacking(&module.imports, &microservice.grants);
    if !lacking.is_empty() {
        problems.push(Problem {
            code: "missing_grants",
            message: format!(
                "microservice `{name}`: `{label}` imports what is not granted, or what no agent offers: {}",
                lacking.join(", ")
            ),
            hint: Some(grants_hint(&lacking)),
        });
    }
    let limit = microservice.limits.memory;
    if let Some(bytes) = module.memory_bytes
        && bytes > limit.0
    {
        let least = bytes.div_ceil(1 << 20);
        let amounts = [bytes, limit.0, 0, 0];
        let [starts, limit, ..] = in_one_unit(limit.0.min(bytes - limit.0), amounts);
        problems.push(Problem {
            code: "too_little_memory",
            message: format!(
                "microservice `{name}`: `{label}` starts with {starts} of memory, and its limit is {limit}"
            ),
            hint: Some(format!(
                "write `limits: {{ memory: {least}MiB }}` or more into the manifest; or build the module with less: a smaller stack (`-Wl,-z,stack-size=65536` in C) or initial memory"
            )),
        });
    }
    if let Some(why) = exports::never_called(&module.exports) {
        problems.push(Problem {
            code: "never_called",
            message: format!("microservice `{name}`: `{label}` {why}"),
            hint: Some(exports::EXPORTS_HINT.into()),
        });
    } else if !microservice.inlets.is_empty()
        && !module
            .exports
            .iter()
            .any(|export| export.starts_with(HANDLER))
    {
        problems.push(Problem {
            code: "no_handler",
            message: format!(
                "microservice `{name}` has inlets, but `{label}` does not export `{HANDLER}0`"
            ),
            hint: Some("implement the handler in the module, or remove the inlets".into()),
        });
    }
    problems
}

/// What to do about imports that a microservice lacks: the grants that offer them, where there are.
fn grants_hint(lacking: &[&str]) -> String {
    let (mut missing, mut advice) = (BTreeSet::new(), BTreeSet::new());
    for import in lacking {
        match grants::grant_for(import) {
            Some(grant) => drop(missing.insert(format!("`{grant}`"))),
            None => drop(advice.insert(grants::advice_for(import).unwrap_or(NO_GRANT))),
        }
    }
    let missing = Vec::from_iter(missing).join(" and ");
    let advice = Vec::from_iter(advice).join("; ");
    match (missing.is_empty(), advice.is_empty()) {
        (true, _) => advice,
        (false, true) => format!("write {missing} into the manifest"),
        (false, false) => format!("write {missing} into the manifest; for the others: {advice}"),
    }
}

/// What people may want to know of the modules of an application that can be applied.
pub(crate) fn notices(manifest: &Manifest, modules: &[Module]) -> Vec<String> {
    let mut notices = Vec::new();
    for microservice in &manifest.microservices {
        let Some(module) = find(&microservice.module, modules) else {
            continue;
        };
        let what = format!("microservice `{}`: `{}`", microservice.name, module.label());
        if let Some(denied) = grants::denied(&module.imports) {
            notices.push(format!("{what} imports {denied}"));
        }
        if module.exports.is_empty() {
            notices.push(format!(
                "{what} exports nothing: nothing of it is ever called"
            ));
        }
    }
    notices
}

/// Whether the routes of an application, as it is placed, make more pairs than anybody can use.
pub(crate) fn route_pairs_problem(
    fleet: &Fleet,
    application: &Name,
    placements: &Placements,
) -> Option<Problem> {
    let manifest = &fleet.applications.get(application)?.manifest;
    let instances = |microservice: &Name| {
        let of = |name: &haar_protocol::assignment::MicroserviceName| {
            &name.application == application && &name.microservice == microservice
        };
        placements
            .iter()
            .filter(|(name, _)| of(name))
            .map(|(_, nodes)| nodes.len() as u64)
            .sum::<u64>()
    };
    let pairs: u64 = manifest
        .routes
        .iter()
        .map(|route| {
            // A topic is one end, however many devices publish to it.
            let at = |end: &RouteEnd| end.port().map_or(1, |port| instances(&port.microservice));
            at(&route.from) * at(&route.to)
        })
        .sum();
    (pairs > ROUTE_PAIRS_MAX).then(|| Problem {
        code: "too_many_routes",
        message: format!(
            "the routes of `{application}` connect {pairs} pairs of instances; {ROUTE_PAIRS_MAX} is the limit"
        ),
        hint: Some("place one end of them on fewer nodes with `count`, or split the application".into()),
    })
}

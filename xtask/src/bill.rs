//! The bill of materials of one program, as CycloneDX 1.5 in JSON: every library that cargo links
//! into it for its target and its features, with version, licence and the digest of its sources,
//! and what depends on what. Made from `cargo tree` and `Cargo.lock`, because the tools that make
//! such bills list the whole workspace, with its tests and its compiler.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::build::{PACKAGE, PROGRAM, Workspace};
use crate::command::output;
use crate::target::Target;

/// The package that brings the sources of SQLite.
const SQLITE: &str = "libsqlite3-sys";

/// What the bill says of the program itself.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) target: Target,
    /// Features beside those that it has by itself.
    pub(crate) features: &'a [String],
    pub(crate) version: &'a str,
    /// SHA-256 of its bytes in hex.
    pub(crate) digest: &'a str,
    /// When its sources were committed, as RFC 3339 has it.
    pub(crate) time: &'a str,
}

/// What is linked and does not come as a package of its own.
#[derive(Debug)]
pub(crate) struct Bundled {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    /// The package that brings it.
    pub(crate) within: &'static str,
}

/// A package in the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
}

impl Package {
    fn url(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

/// The bill of the agent's program.
pub(crate) fn of_agent(workspace: &Workspace, program: &Program<'_>) -> anyhow::Result<Value> {
    let tree = output(
        Command::new(env!("CARGO"))
            .current_dir(&workspace.root)
            .args(["tree", "--locked", "--package", PACKAGE])
            .args(["--edges", "normal,no-proc-macro"])
            .args(["--features", &program.features.join(",")])
            .args(["--target", program.target.triple()])
            .args(["--prefix", "depth", "--format", "|{p}|{l}"]),
    )?;
    let lock = std::fs::read_to_string(workspace.root.join("Cargo.lock"))?;
    let bundled = [
        Bundled {
            name: "sqlite",
            version: sqlite_version(&workspace.folder(SQLITE)?)?,
            within: SQLITE,
        },
        Bundled {
            name: "rust-std",
            version: rust_version(&workspace.root)?,
            within: PACKAGE,
        },
    ];
    document(&tree, &lock, &bundled, program)
}

fn sqlite_version(folder: &Path) -> anyhow::Result<String> {
    let header = std::fs::read_to_string(folder.join("sqlite3/sqlite3.h"))?;
    let line = header.lines().find(|line| line.contains("SQLITE_VERSION "));
    let version = line.and_then(|line| line.split('"').nth(1));
    Ok(version
        .context("sqlite3.h does not say its version")?
        .to_owned())
}

fn rust_version(root: &Path) -> anyhow::Result<String> {
    let said = output(Command::new("rustc").current_dir(root).arg("--version"))?;
    let version = said.split_whitespace().nth(1);
    Ok(version
        .context("rustc does not say its version")?
        .to_owned())
}

fn document(
    tree: &str,
    lock: &str,
    bundled: &[Bundled],
    program: &Program<'_>,
) -> anyhow::Result<Value> {
    let (licences, mut edges) = read_tree(tree)?;
    let digests = read_lock(lock)?;
    let mut components: Vec<Value> = licences
        .iter()
        .filter(|(package, _)| package.name != PACKAGE)
        .map(|(package, licence)| {
            let mut component = json!({
                "type": "library",
                "bom-ref": package.url(),
                "name": package.name,
                "version": package.version,
                "purl": package.url(),
                "scope": "required",
            });
            if !licence.is_empty() {
                // Old packages write a slash where SPDX has a word.
                component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
            }
            if let Some(digest) = digests.get(package) {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
            }
            component
        })
        .collect();
    for one in bundled {
        let url = format!("pkg:generic/{}@{}", one.name, one.version);
        components.push(json!({
            "type": "library",
            "bom-ref": url,
            "name": one.name,
            "version": one.version,
            "purl": url,
            "scope": "required",
        }));
        let within = edges
            .iter_mut()
            .find(|(package, _)| package.name == one.within);
        let (_, needs) = within.with_context(|| format!("{} is not linked", one.within))?;
        needs.push(url);
    }
    let agent = licences
        .keys()
        .find(|package| package.name == PACKAGE)
        .context("the agent is not in its own tree")?;
    let dependencies: Vec<Value> = edges
        .iter()
        .map(|(package, needs)| json!({ "ref": package.url(), "dependsOn": needs }))
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": program.time,
            "component": {
                "type": "application",
                "bom-ref": agent.url(),
                "name": PROGRAM,
                "version": program.version,
                "purl": agent.url(),
                "licenses": [{ "expression": licences[agent] }],
                "hashes": [{ "alg": "SHA-256", "content": program.digest }],
                "properties": [{ "name": "haar:target", "value": program.target.triple() }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

type Licences = BTreeMap<Package, String>;
type Edges = BTreeMap<Package, Vec<String>>;

/// Reads lines `DEPTH|NAME vVERSION …|LICENCE` of `cargo tree`. What a package needs stands below
/// its first line; later ones are marked with `(*)`.
fn read_tree(tree: &str) -> anyhow::Result<(Licences, Edges)> {
    let mut licences = Licences::new();
    let mut edges = Edges::new();
    let mut path: Vec<Package> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let wrong = || format!("cargo tree wrote a line that is not understood: {line}");
        let cells: Vec<&str> = line.split('|').collect();
        let [depth, package, licence] = cells[..] else {
            anyhow::bail!(wrong());
        };
        let depth: usize = depth.parse().with_context(wrong)?;
        let mut words = package.split_whitespace();
        let package = Package {
            name: words.next().with_context(wrong)?.to_owned(),
            version: words
                .next()
                .and_then(|word| word.strip_prefix('v'))
                .with_context(wrong)?
                .to_owned(),
        };
        anyhow::ensure!(depth <= path.len(), wrong());
        path.truncate(depth);
        if let Some(parent) = path.last() {
            let needs = edges.entry(parent.clone()).or_default();
            if !needs.contains(&package.url()) {
                needs.push(package.url());
            }
        }
        let licence = licence.trim_end_matches(" (*)");
        licences.insert(package.clone(), licence.to_owned());
        edges.entry(package.clone()).or_default();
        path.push(package);
    }
    Ok((licences, edges))
}

/// The digests of the packages' archives.
fn read_lock(text: &str) -> anyhow::Result<BTreeMap<Package, String>> {
    let lock: toml::Table = text.parse().context("Cargo.lock is no TOML")?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let digests = packages.into_iter().flatten().filter_map(|package| {
        let text = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
        let (name, version) = (text("name")?, text("version")?);
        Some((Package { name, version }, text("checksum")?))
    });
    Ok(digests.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
0|haar-host v0.1.0 (/work/host)|Apache-2.0
1|libsqlite3-sys v0.39.1|MIT
1|one v1.0.0|MIT/Apache-2.0
2|two v2.0.0|MIT
1|two v2.0.0|MIT (*)
";
    const LOCK: &str = "\
[[package]]
name = \"one\"
version = \"1.0.0\"
checksum = \"abcd\"
";

    fn bill(tree: &str) -> anyhow::Result<Value> {
        let sqlite = Bundled {
            name: "sqlite",
            version: "3.53.0".into(),
            within: SQLITE,
        };
        let program = Program {
            target: Target::Armv7,
            features: &[],
            version: "0.1.0",
            digest: "ffff",
            time: "2026-11-21T00:00:00Z",
        };
        document(tree, LOCK, &[sqlite], &program)
    }

    #[test]
    fn a_bill_names_each_library_once_with_its_digest_and_what_it_needs() {
        let bill = bill(TREE).unwrap();
        let names = |list: &Value, key: &str| -> Vec<String> {
            let items = list.as_array().unwrap().iter();
            items
                .map(|one| one[key].as_str().unwrap().to_owned())
                .collect()
        };
        let components = &bill["components"];
        assert_eq!(
            names(components, "name"),
            ["libsqlite3-sys", "one", "two", "sqlite"]
        );
        assert_eq!(components[1]["hashes"][0]["content"], "abcd");
        assert_eq!(
            components[1]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        let agent = &bill["dependencies"][0];
        assert_eq!(agent["ref"], "pkg:cargo/haar-host@0.1.0");
        assert_eq!(agent["ref"], bill["metadata"]["component"]["bom-ref"]);
        assert_eq!(
            agent["dependsOn"],
            json!([
                "pkg:cargo/libsqlite3-sys@0.39.1",
                "pkg:cargo/one@1.0.0",
                "pkg:cargo/two@2.0.0"
            ])
        );
        assert_eq!(
            bill["dependencies"][1]["dependsOn"],
            json!(["pkg:generic/sqlite@3.53.0"])
        );
    }

    #[test]
    fn a_tree_that_is_not_understood_makes_no_bill() {
        for wrong in ["", "0|haar-host", "2|deep v1.0.0|MIT", "0|haar-host 1|MIT"] {
            assert!(bill(wrong).is_err(), "{wrong}");
        }
    }
}

//! How a device joins a site: with a one-use token that tells where the controller is and how to
//! recognise it. The device's key is made here and stays here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use haar_protocol::ids::{Name, NodeId};
use haar_protocol::limits::Budget;
use haar_protocol::number;
use haar_protocol::quantity::ByteSize;
use haar_protocol::rest::EnrolmentRequest;
use haar_protocol::token::EnrolmentToken;

use crate::controller::{Controller, Credentials};
use crate::identity::modes::foreign_owner;
use crate::identity::{DataDirectory, Membership};
use crate::machine;
use crate::runtime::mappings;

/// Microservices that a node runs at most, unless told otherwise: more of them do not fit into one
/// status with all that is to be told of each.
const MICROSERVICES_MAX: u32 = 256;

/// What the person wishes. What is not said stays as it was when this node enrolled before.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Name of the node: that of the host when not said.
    pub name: Option<Name>,
    /// Labels of the node, beside those that it has.
    pub labels: BTreeMap<String, String>,
    /// Memory that it gives to microservices: half of what it may use when not said.
    pub memory: Option<ByteSize>,
    /// Of processors, in percent of one core: all of them when not said.
    pub cpu_percent: Option<u32>,
    /// Microservices that it runs at most: 256 when not said.
    pub microservices: Option<u32>,
    /// Bytes that microservices may store: half of what is free on the file system of the data
    /// directory when not said.
    pub storage: Option<ByteSize>,
}

/// Joins the site of `token`, and keeps what was learnt below `data`. Blocks.
///
/// # Errors
/// When the token is not one or is used up, the controller can't be reached or is not the right
/// one, or the data directory belongs to another site. The text says what to do.
pub fn enrol(data: &Path, token: &str, wishes: Wishes) -> anyhow::Result<Membership> {
    let token: EnrolmentToken = token.parse()?;
    check_owner(data)?;
    let directory = DataDirectory::open(data)?;
    let before = directory.membership()?;
    if let Some(before) = &before
        && before.site != token.site
    {
        bail!(
            "{} holds node `{}` of site {}, the token is of site {}: use another data directory with --data",
            data.display(),
            before.name,
            before.site,
            token.site
        );
    }
    let key = directory.key(random_seed)?;
    let node = NodeId::of(&key.public());
    let (controller, ca_pem) = Controller::by_fingerprint(&token.url, &token.ca_sha256)?;
    let credentials = Credentials {
        site: token.site.clone(),
        node,
        key: key.clone(),
    };
    let wanted = Wanted::of(wishes, before.as_ref(), data)?;
    wanted.tell(before.as_ref());
    let request = EnrolmentRequest {
        secret: token.secret.clone(),
        key: key.public(),
        proof: credentials.proof()?,
        name: wanted.name,
        labels: wanted.labels.clone(),
        budget: wanted.budget.clone(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        target: haar_engine::configuration::machine(),
    };
    let enrolment = controller
        .enrol(&request)
        .context("the site did not take this node")?;
    if enrolment.site != token.site || enrolment.node != credentials.node {
        bail!(
            "the controller at {} answered for another site or node: do not trust it",
            token.url
        );
    }
    let membership = Membership {
        site: enrolment.site,
        site_key: enrolment.site_key,
        node: enrolment.node,
        name: enrolment.name,
        controller: token.url,
        relays: enrolment.relays,
        ca_pem,
        budget: wanted.budget,
        memory_source: wanted.memory_source,
        labels: wanted.labels,
    };
    if haar_protocol::ids::SiteId::of(&membership.site_key) != membership.site {
        bail!(
            "the controller's key is not that of site {}: do not trust it",
            membership.site
        );
    }
    directory.set_membership(&membership)?;
    Ok(membership)
}

/// What this node asks the site for: what was said, else what it had, else what the machine gives.
struct Wanted {
    name: Option<Name>,
    labels: BTreeMap<String, String>,
    budget: Budget,
    memory_source: Option<String>,
}

impl Wanted {
    fn of(wishes: Wishes, before: Option<&Membership>, data: &Path) -> anyhow::Result<Self> {
        let had = before.map(|before| &before.budget);
        let (memory, memory_source) = match (wishes.memory, before) {
            (Some(memory), _) => (memory, Some("as said at enrolment".to_owned())),
            (None, Some(before)) => (before.budget.memory, before.memory_source.clone()),
            (None, None) => {
                let (memory, source) = machine::memory();
                (memory, Some(source))
            }
        };
        let mut labels = before.map_or_else(BTreeMap::new, |before| before.labels.clone());
        labels.extend(wishes.labels);
        let cpu_percent = wishes.cpu_percent.or(had.map(|had| had.cpu_percent));
        Ok(Self {
            name: match before {
                Some(before) => wishes.name.or(Some(before.name.clone())),
                None => wishes.name.or_else(host_name),
            },
            labels,
            budget: Budget {
                memory,
                microservices: microservices(
                    wishes.microservices,
                    had.map(|had| had.microservices),
                )?,
                cpu_percent: cpu_percent.unwrap_or_else(machine::cpu_percent),
                storage: match wishes.storage.or(had.map(|had| had.storage)) {
                    Some(storage) => storage,
                    None => half_of_free_space(data)?,
                },
            },
            memory_source,
        })
    }

    /// Says what it gives, and what becomes of what the node had: nothing is changed yet.
    fn tell(&self, before: Option<&Membership>) {
        for (what, now, had) in self.lines(before) {
            match had {
                Some(had) if had == now => tracing::info!("{what}: {now}, as before"),
                Some(had) => tracing::info!("{what}: {now}, was {had}"),
                None => tracing::info!("{what}: {now}"),
            }
        }
        if let Some(source) = &self.memory_source {
            tracing::info!("the memory is {source}");
        }
    }

    fn lines(&self, before: Option<&Membership>) -> Vec<(&'static str, String, Option<String>)> {
        let name = |name: &Name| name.to_string();
        let now = described(&self.labels, &self.budget);
        let had = before.map(|before| described(&before.labels, &before.budget));
        let had_name = before.map(|before| name(&before.name));
        let mut lines = vec![(
            "name",
            self.name.as_ref().map_or_else(String::new, name),
            had_name,
        )];
        for (index, (what, now)) in now.into_iter().enumerate() {
            lines.push((what, now, had.as_ref().map(|had| had[index].1.clone())));
        }
        lines
    }
}

/// Labels and budget of a node, for people.
fn described(labels: &BTreeMap<String, String>, budget: &Budget) -> [(&'static str, String); 5] {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    [
        ("labels", labels.join(", ")),
        ("memory", budget.memory.to_string()),
        ("microservices", budget.microservices.to_string()),
        ("processors", format!("{}%", budget.cpu_percent)),
        ("storage", budget.storage.to_string()),
    ]
}

/// The host's name, as far as it can be the name of a node.
fn host_name() -> Option<Name> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    text.trim()
        .split('.')
        .next()?
        .to_ascii_lowercase()
        .parse()
        .ok()
}

/// How many microservices a node runs at most: what was said, else what it had, and no more than its
/// kernel lets it.
fn microservices(wished: Option<u32>, had: Option<u32>) -> anyhow::Result<u32> {
    let most = mappings::allowed().map_or(u64::MAX, mappings::instances);
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    match wished {
        None => Ok(had.unwrap_or(MICROSERVICES_MAX).min(most)),
        Some(wished) if wished <= most => Ok(wished),
        Some(wished) => bail!(
            "the kernel of this machine has memory mappings for {most} microservices, not for {wished}: say --microservices {most}, or raise `vm.max_map_count`"
        ),
    }
}

pub(crate) fn random_seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| anyhow::anyhow!("the machine has no randomness to give: {error}"))?;
    Ok(seed)
}

/// Files that root leaves in the directory of a service lock the service out.
fn check_owner(data: &Path) -> anyhow::Result<()> {
    if let Some(owner) = foreign_owner(data)? {
        bail!(
            "{} belongs to user {owner}, and you are user {}: enrol as that user, such as `runuser -u haar -- haar-agent enrol TOKEN`",
            data.display(),
            rustix::process::geteuid().as_raw()
        );
    }
    Ok(())
}

/// Half of what this process may still write to the file system of `data`, in whole MiB.
fn half_of_free_space(data: &Path) -> anyhow::Result<ByteSize> {
    let space = rustix::fs::statvfs(data).with_context(|| {
        format!(
            "can't ask how much space is free in {}: say it with --storage",
            data.display()
        )
    })?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    Ok(ByteSize(number::capped((free >> 21) << 20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_free_space_is_less_than_the_file_system_has() {
        let data = tempfile::tempdir().unwrap();
        let space = rustix::fs::statvfs(data.path()).unwrap();
        let half = half_of_free_space(data.path()).unwrap().0;
        assert!(half > 0 && half <= space.f_blocks * space.f_frsize / 2);
        assert_eq!(half % (1 << 20), 0);
        assert!(half_of_free_space(&data.path().join("nothing")).is_err());
    }

    fn membership(memory: ByteSize) -> Membership {
        let key = haar_protocol::keys::SecretKey::from_seed([1; 32]).public();
        Membership {
            site: haar_protocol::ids::SiteId::of(&key),
            site_key: key,
            node: NodeId::of(&key),
            name: "edge".parse().unwrap(),
            controller: "https://127.0.0.1:1".into(),
            relays: Vec::new(),
            ca_pem: String::new(),
            budget: Budget {
                memory,
                microservices: MICROSERVICES_MAX,
                cpu_percent: 150,
                storage: ByteSize(7 << 20),
            },
            memory_source: Some("as said at enrolment".into()),
            labels: [("role".to_owned(), "edge".to_owned())].into(),
        }
    }

    #[test]
    fn enrolling_again_changes_what_is_said_and_nothing_else() {
        let data = tempfile::tempdir().unwrap();
        let before = membership(ByteSize(32 << 20));
        let same = Wanted::of(Wishes::default(), Some(&before), data.path()).unwrap();
        assert_eq!(same.name.as_ref(), Some(&before.name));
        assert_eq!(same.labels, before.labels);
        assert_eq!(same.budget, before.budget);
        assert_eq!(same.memory_source, before.memory_source);
        let wishes = Wishes {
            memory: Some(ByteSize(512 << 20)),
            labels: [("room".to_owned(), "attic".to_owned())].into(),
            ..Wishes::default()
        };
        let more = Wanted::of(wishes, Some(&before), data.path()).unwrap();
        let changed: Vec<_> = more
            .lines(Some(&before))
            .into_iter()
            .filter(|(_, now, had)| had.as_ref() != Some(now))
            .collect();
        let expected = [
            (
                "labels",
                "role=edge, room=attic".to_owned(),
                Some("role=edge".to_owned()),
            ),
            ("memory", "512MiB".to_owned(), Some("32MiB".to_owned())),
        ];
        assert_eq!(changed, expected);
    }

    #[test]
    fn a_new_node_takes_the_hosts_name_and_says_where_its_memory_comes_from() {
        let data = tempfile::tempdir().unwrap();
        let new = Wanted::of(Wishes::default(), None, data.path()).unwrap();
        assert_eq!(new.name, host_name());
        let (memory, source) = machine::memory();
        assert_eq!(
            (new.budget.memory, new.memory_source),
            (memory, Some(source))
        );
    }

    #[test]
    fn the_directory_of_another_user_is_not_enrolled_in() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_owner(folder.path()).is_ok());
        assert!(check_owner(&folder.path().join("new")).is_ok());
        let foreign = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(1), None).unwrap();
            folder.path()
        } else {
            Path::new("/")
        };
        let words = check_owner(foreign).unwrap_err().to_string();
        assert!(words.contains("runuser -u haar"), "{words}");
    }
}

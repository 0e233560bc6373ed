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
use crate::runtime::mappings;

/// Microservices that a node runs at most, unless told otherwise: more of them do not fit into one
/// status with all that is to be told of each.
const MICROSERVICES_MAX: u32 = 256;
/// Memory for microservices where the machine does not tell how much it has.
const MEMORY_FALLBACK: ByteSize = ByteSize(64 << 20);

/// What the person wishes.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Name of the node.
    pub name: Option<Name>,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Memory that it gives to microservices: half of the machine's when not said.
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
    if let Some(before) = directory.membership()?
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
    let budget = Budget {
        memory: wishes.memory.unwrap_or_else(half_of_memory),
        microservices: microservices(wishes.microservices)?,
        cpu_percent: wishes.cpu_percent.unwrap_or_else(all_cores),
        storage: match wishes.storage {
            Some(storage) => storage,
            None => half_of_free_space(data)?,
        },
    };
    let request = EnrolmentRequest {
        secret: token.secret.clone(),
        key: key.public(),
        proof: credentials.proof()?,
        name: wishes.name,
        labels: wishes.labels.clone(),
        budget: budget.clone(),
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
        budget,
        labels: wishes.labels,
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

/// How many microservices a node runs at most: no more than its kernel lets it.
fn microservices(wished: Option<u32>) -> anyhow::Result<u32> {
    let most = mappings::allowed().map_or(u64::MAX, mappings::instances);
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    match wished {
        None => Ok(MICROSERVICES_MAX.min(most)),
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

fn half_of_memory() -> ByteSize {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else {
        return MEMORY_FALLBACK;
    };
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.map_or(MEMORY_FALLBACK, |kib| ByteSize((kib / 2_048) << 20))
}

/// All cores of the machine, in percent of one.
fn all_cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(100)
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

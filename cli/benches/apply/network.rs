//! What lies between the node and its controller: loopback, or a pair of virtual devices whose bytes the
//! kernel counts, with the node in a network namespace of its own. The second needs root.

use std::path::Path;
use std::process::Command;

/// Where the controller and the node are.
pub(crate) enum Network {
    /// Both on this machine, in one network.
    Loopback,
    /// The node in a namespace of this name, at the other end of a device.
    Namespace { name: String, device: String },
}

/// The controller's and the node's address in a namespace: of a block for tests (RFC 2544).
const CONTROLLER: &str = "198.18.0.1";
const NODE: &str = "198.18.0.2";

impl Network {
    /// A namespace with a device to it. None where none can be made.
    pub(crate) fn namespace() -> Option<Self> {
        let name = format!("haar-bench-{}", std::process::id());
        let device = format!("hb{}", std::process::id());
        if !ip(&["netns", "add", &name]) {
            return None;
        }
        let network = Self::Namespace {
            name: name.clone(),
            device: device.clone(),
        };
        let (near, far) = (format!("{CONTROLLER}/30"), format!("{NODE}/30"));
        let steps: [&[&str]; 5] = [
            &[
                "link", "add", &device, "type", "veth", "peer", "name", "site", "netns", &name,
            ],
            &["addr", "add", &near, "dev", &device],
            &["link", "set", &device, "up"],
            &["-n", &name, "addr", "add", &far, "dev", "site"],
            &["-n", &name, "link", "set", "site", "up"],
        ];
        steps.iter().all(|step| ip(step)).then_some(network)
    }

    /// Where the controller listens.
    pub(crate) fn controller(&self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Namespace { .. } => CONTROLLER,
        }
    }

    /// A command that runs `program` on the node.
    pub(crate) fn on_node(&self, program: &Path) -> Command {
        match self {
            Self::Loopback => Command::new(program),
            Self::Namespace { name, .. } => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
        }
    }

    /// Bytes that have gone to the node and come from it, with all headers down to those of Ethernet.
    pub(crate) fn bytes(&self) -> Option<(u64, u64)> {
        let Self::Namespace { device, .. } = self else {
            return None;
        };
        let count = |name: &str| {
            let path = format!("/sys/class/net/{device}/statistics/{name}");
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        Some((count("tx_bytes")?, count("rx_bytes")?))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Self::Namespace { name, .. } = self {
            ip(&["netns", "del", name]); // its device goes with it
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

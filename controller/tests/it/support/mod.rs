//! What tests share: a site that runs, its HTTP client, devices that join it, modules to push,
//! programs to run.

pub(crate) mod device;
pub(crate) mod http;
pub(crate) mod modules;
#[path = "../../../../cli/tests/it/program.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of `haar`; each uses a part"
)]
pub(crate) mod program;
pub(crate) mod site;
pub(crate) mod wait;

//! Uploads a module in parts. A connection that is cut costs one part: the server is asked how
//! much has arrived, and the upload goes on from there.

use std::time::Duration;

use haar_protocol::ids::Digest;
use haar_protocol::rest::{Module, UploadState};

use super::{Body, Client};
use crate::error::{CommandError, Exit, Result};
use crate::interrupt;

/// How much is sent at a time, in bytes: what a cut connection costs at most.
const PART_BYTES: usize = 1 << 20;
/// Attempts in a row that bring nothing before we give up.
const ATTEMPTS_MAX: u32 = 6;

/// How an upload ended.
#[derive(Debug)]
pub(crate) enum Upload {
    /// The site has the module now.
    Pushed(Module),
    /// It had it before.
    AlreadyThere(Module),
}

impl Upload {
    pub(crate) fn module(&self) -> &Module {
        match self {
            Upload::Pushed(module) | Upload::AlreadyThere(module) => module,
        }
    }

    pub(crate) fn into_module(self) -> Module {
        match self {
            Upload::Pushed(module) | Upload::AlreadyThere(module) => module,
        }
    }
}

enum Progress {
    Whole(Box<Module>),
    Offset(u64),
}

/// Uploads `content`, whose digest is `digest`, unless the site has it. `on_position` is told how
/// many bytes have arrived, `on_trouble` what went wrong on the way.
pub(crate) fn upload(
    client: &Client,
    digest: Digest,
    content: &[u8],
    on_position: &mut dyn FnMut(u64),
    on_trouble: &mut dyn FnMut(String),
) -> Result<Upload> {
    if let Some(module) = found(client.get(&format!("modules/{digest}")))? {
        return Ok(Upload::AlreadyThere(module));
    }
    let mut offset: Option<u64> = None; // unknown until the server has said it
    let mut failures = 0;
    loop {
        let outcome = match offset {
            None => ask_progress(client, digest),
            Some(offset) => send_part(client, digest, content, offset),
        };
        match outcome {
            Ok(Progress::Whole(module)) => return Ok(Upload::Pushed(*module)),
            Ok(Progress::Offset(arrived)) => {
                if offset.is_some_and(|before| arrived <= before) {
                    failures += 1;
                    give_up_after(failures, || {
                        CommandError::failure("the site takes no more of the module")
                    })?;
                } else if offset.is_some() {
                    failures = 0;
                }
                on_position(arrived);
                offset = Some(arrived);
            }
            Err(error) if is_worth_another_try(&error) => {
                failures += 1;
                on_trouble(format!("{}; trying again", error.message));
                give_up_after(failures, || error)?;
                interrupt::sleep(Duration::from_millis(250) * 2u32.pow(failures.min(4)))?;
                offset = None;
            }
            Err(error) => return Err(error),
        }
    }
}

fn give_up_after(failures: u32, error: impl FnOnce() -> CommandError) -> Result<()> {
    if failures >= ATTEMPTS_MAX {
        Err(error())
    } else {
        Ok(())
    }
}

/// A cut or slow connection, a part that does not begin where the last one ended, or the remains
/// of our own request that the server has not given up yet.
fn is_worth_another_try(error: &CommandError) -> bool {
    const CODES: [&str; 8] = [
        "connection_cut",
        "connection_refused",
        "connection_failed",
        "timeout",
        "cut",
        "too_slow",
        "wrong_offset",
        "upload_busy",
    ];
    CODES.contains(&&*error.code)
}

fn ask_progress(client: &Client, digest: Digest) -> Result<Progress> {
    match found(client.get::<UploadState>(&format!("modules/{digest}/upload")))? {
        Some(UploadState { complete: true, .. }) => client
            .get(&format!("modules/{digest}"))
            .map(|module| Progress::Whole(Box::new(module))),
        Some(UploadState { offset, .. }) => Ok(Progress::Offset(offset)),
        None => Ok(Progress::Offset(0)),
    }
}

fn send_part(client: &Client, digest: Digest, content: &[u8], offset: u64) -> Result<Progress> {
    let beyond =
        || CommandError::failure("the site says that more of the module has arrived than there is");
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| content.get(offset..))
        .ok_or_else(beyond)?;
    let bytes = &rest[..rest.len().min(PART_BYTES)];
    let body = Body::Part {
        bytes,
        offset,
        total: content.len() as u64,
    };
    let answer = client.call("PUT", &format!("modules/{digest}/content"), body)?;
    if answer.status == 202 {
        let state: UploadState = client.parse(&answer.text)?;
        return Ok(Progress::Offset(state.offset));
    }
    client
        .parse(&answer.text)
        .map(|module| Progress::Whole(Box::new(module)))
}

/// What was found, if it was.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.exit == Exit::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

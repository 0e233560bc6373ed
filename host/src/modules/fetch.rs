//! Modules from the controller: fetched by digest, going on where a cut-off fetch stopped.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::Context as _;
use haar_protocol::assignment::Microservice;
use haar_protocol::ids::Digest;

use super::{Modules, PrepareError};
use crate::controller::Refused;
use crate::identity::sync_directory;

impl Modules {
    /// Fetches the module of `spec` into its place.
    pub(super) fn fetch(&self, spec: &Microservice) -> Result<(), PrepareError> {
        let path = self.module_path(&spec.module);
        let part = path.with_extension("part");
        let label = &spec.module_label;
        let outcome = self
            .fetch_into(spec, &part)
            .with_context(|| format!("{label} can't be fetched"));
        match outcome {
            Ok(true) => {}
            Ok(false) => {
                let _ = std::fs::remove_file(&part); // it is of no use; a leftover is overwritten
                return Err(PrepareError::NotYet(format!(
                    "{label}: what the controller sent is not the module {}",
                    spec.module
                )));
            }
            Err(error)
                if error
                    .downcast_ref::<Refused>()
                    .is_some_and(|refused| refused.0.code == "unknown_module") =>
            {
                return Err(PrepareError::NotYet(format!("{error:#}")));
            }
            Err(error) => return Err(PrepareError::NotYet(format!("{error:#}"))),
        }
        std::fs::rename(&part, &path).map_err(|error| {
            PrepareError::NotYet(format!("can't write {}: {error}", path.display()))
        })?;
        sync_directory(&path);
        Ok(())
    }

    /// Fetches what is lacking of the module into `part`. False when the whole is not the module.
    fn fetch_into(&self, spec: &Microservice, part: &Path) -> anyhow::Result<bool> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(part)?;
        let mut have = file.metadata()?.len();
        if have > spec.module_bytes {
            have = 0;
        }
        if have < spec.module_bytes {
            let (reader, partial) =
                self.controller
                    .module(&spec.module, have, &self.credentials)?;
            let start = if partial { have } else { 0 };
            file.set_len(start)?;
            file.seek(SeekFrom::Start(start))?;
            // One byte more than there should be, so that too long an answer is noticed.
            std::io::copy(&mut reader.take(spec.module_bytes - start + 1), &mut file)?;
        }
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
        let mut content = Vec::new();
        file.take(spec.module_bytes + 1).read_to_end(&mut content)?;
        if (content.len() as u64) < spec.module_bytes {
            anyhow::bail!(
                "the connection was cut after {} of {} bytes",
                content.len(),
                spec.module_bytes
            );
        }
        Ok(Digest::of(&content) == spec.module)
    }
}

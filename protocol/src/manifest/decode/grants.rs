//! Grants.

use std::collections::BTreeSet;

use crate::grants::{Access, DirectoryGrant, Grants, Mount, SystemPart};

use super::super::check::DIRECTORIES_MAX;
use super::super::errors::KeyPath;
use super::super::tree::{Node, Value};
use super::super::values::{Decoded, Decoder};

impl Decoder {
    pub(super) fn grants(&mut self, node: &Node, at: &KeyPath) -> Decoded<Grants> {
        let known = ["directories", "key_value", "data_directory", "system"];
        let fields = self.fields(node, at, &known)?;
        let directories = self.optional(&fields, "directories", |this, node, at| {
            this.list(node, at, DIRECTORIES_MAX, Self::directory)
        });
        let key_value = self.optional(&fields, "key_value", Self::boolean);
        let data_directory = self.optional(&fields, "data_directory", Self::text);
        let system = self.optional(&fields, "system", Self::system);
        Some(Grants {
            directories: directories?.unwrap_or_default(),
            key_value: key_value?.unwrap_or_default(),
            data_directory: data_directory?,
            system: system?.unwrap_or_default(),
        })
    }

    /// `true` for all parts, or a list of some.
    fn system(&mut self, node: &Node, at: &KeyPath) -> Decoded<BTreeSet<SystemPart>> {
        if let Value::List(_) = &node.value {
            let most = SystemPart::BY_NAME.len();
            let parts = self.list(node, at, most, |this, node, at| {
                this.one_of(node, at, &SystemPart::BY_NAME)
            })?;
            return Some(parts.into_iter().collect());
        }
        match &node.value {
            Value::Scalar { text, .. } if text == "true" => Some(SystemPart::all()),
            Value::Scalar { text, .. } if text == "false" => Some(BTreeSet::new()),
            _ => {
                let hint = "write `true` for everything, or a list such as `[cpu, memory]`";
                self.wrong(node, at, "neither `true` nor a list of parts", Some(hint))
            }
        }
    }

    fn directory(&mut self, node: &Node, at: &KeyPath) -> Decoded<DirectoryGrant> {
        let known = ["host", "guest", "access", "quota", "optional", "mount"];
        let fields = self.fields(node, at, &known)?;
        let host = self.required(&fields, "host", Self::text);
        let guest = self.required(&fields, "guest", Self::text);
        let access = self.optional(&fields, "access", |this, node, at| {
            this.one_of(
                node,
                at,
                &[
                    ("read-only", Access::ReadOnly),
                    ("read-write", Access::ReadWrite),
                ],
            )
        });
        let quota = self.optional(&fields, "quota", Self::formed);
        let optional = self.optional(&fields, "optional", Self::boolean);
        let mount = self.optional(&fields, "mount", |this, node, at| {
            this.one_of(
                node,
                at,
                &[("any", Mount::Any), ("required", Mount::Required)],
            )
        });
        Some(DirectoryGrant {
            host: host?,
            guest: guest?,
            access: access?.unwrap_or_default(),
            quota: quota?,
            optional: optional?.unwrap_or_default(),
            mount: mount?.unwrap_or_default(),
        })
    }
}

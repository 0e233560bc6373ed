//! Guests on their way to a site: a module says its name and version.

use wasm_encoder::{ComponentSection as _, CustomSection};

/// The version that every module of the suite has.
pub(crate) const VERSION: &str = "1.0.0";

/// The component with a name and the version.
pub(crate) fn with_name(component: &[u8], name: &str) -> anyhow::Result<Vec<u8>> {
    let mut metadata = wasm_metadata::AddMetadata::default();
    metadata.name = wasm_metadata::AddMetadataField::Set(name.to_owned());
    let mut named = metadata.to_wasm(component)?;
    let version = CustomSection {
        name: "version".into(),
        data: VERSION.as_bytes().into(),
    };
    version.append_to_component(&mut named);
    Ok(named)
}

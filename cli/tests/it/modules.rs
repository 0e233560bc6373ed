//! Components made by hand.

use wasm_encoder::{
    Component, ComponentImportSection, ComponentNameSection, ComponentTypeRef,
    ComponentTypeSection, CustomSection, InstanceType,
};

/// A valid component that imports the interfaces named and does nothing.
pub(crate) fn component(imports: &[&str]) -> Component {
    let mut component = Component::new();
    if !imports.is_empty() {
        let mut types = ComponentTypeSection::new();
        types.instance(&InstanceType::new());
        component.section(&types);
        let mut section = ComponentImportSection::new();
        for import in imports {
            section.import(*import, ComponentTypeRef::Instance(0));
        }
        component.section(&section);
    }
    component
}

/// The same with a name and a version.
pub(crate) fn named(name: &str, version: &str, imports: &[&str]) -> Vec<u8> {
    let mut component = component(imports);
    let mut names = ComponentNameSection::new();
    names.component(name);
    component.section(&names);
    component.section(&CustomSection {
        name: "version".into(),
        data: version.as_bytes().into(),
    });
    component.finish()
}

/// A signable component of at least so many bytes.
pub(crate) fn large(bytes: usize) -> Vec<u8> {
    let mut component = component(&[]);
    let mut names = ComponentNameSection::new();
    names.component("large");
    component.section(&names);
    component.section(&CustomSection {
        name: "version".into(),
        data: b"1.0.0".as_slice().into(),
    });
    component.section(&CustomSection {
        name: "padding".into(),
        data: vec![0x5a; bytes].into(),
    });
    component.finish()
}

/// A component that says its name and version.
pub(crate) fn with_name(component: &[u8], name: &str, version: &str) -> Vec<u8> {
    use wasm_encoder::ComponentSection as _;
    let mut metadata = wasm_metadata::AddMetadata::default();
    metadata.name = wasm_metadata::AddMetadataField::Set(name.to_owned());
    let mut named = metadata.to_wasm(component).unwrap();
    let version = CustomSection {
        name: "version".into(),
        data: version.as_bytes().into(),
    };
    version.append_to_component(&mut named);
    named
}

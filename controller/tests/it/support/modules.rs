//! Minimal components: a name, a version, imports and exports of empty instances.

use haar_protocol::ids::Digest;
use haar_protocol::keys::SecretKey;
use haar_protocol::module;
use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentInstanceSection, ComponentNameSection, ComponentTypeRef, ComponentTypeSection,
    CustomSection, InstanceType, MemorySection, MemoryType, Module, ModuleSection,
};

pub(crate) const HANDLER: &str = "haar:local/handler@0.1.0";

/// A component to be.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    /// Bytes that only make it larger.
    pub(crate) padding: usize,
    /// Pages of memory that it starts with.
    pub(crate) pages: u64,
}

/// A component that handles messages.
pub(crate) fn recipe(name: &str, version: &str) -> Recipe {
    Recipe {
        name: Some(name.into()),
        version: Some(version.into()),
        imports: vec!["haar:local/messaging@0.1.0".into()],
        exports: vec![HANDLER.into()],
        padding: 0,
        pages: 0,
    }
}

impl Recipe {
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut component = Component::new();
        if let Some(name) = &self.name {
            let mut names = ComponentNameSection::new();
            names.component(name);
            component.section(&names);
        }
        if let Some(version) = &self.version {
            component.section(&custom("version", version.as_bytes()));
        }
        component.section(&custom("padding", &vec![7; self.padding]));
        if self.pages > 0 {
            let mut memories = MemorySection::new();
            memories.memory(MemoryType {
                minimum: self.pages,
                maximum: None,
                memory64: false,
                shared: false,
                page_size_log2: None,
            });
            let mut module = Module::new();
            module.section(&memories);
            component.section(&ModuleSection(&module));
        }
        let mut types = ComponentTypeSection::new();
        types.instance(&InstanceType::new());
        component.section(&types);
        let mut imports = ComponentImportSection::new();
        for import in &self.imports {
            imports.import(import.as_str(), ComponentTypeRef::Instance(0));
        }
        component.section(&imports);
        let mut instances = ComponentInstanceSection::new();
        let mut exports = ComponentExportSection::new();
        let first = u32::try_from(self.imports.len()).unwrap();
        for (index, export) in (first..).zip(&self.exports) {
            instances.export_items(Vec::<(&str, ComponentExportKind, u32)>::new());
            exports.export(export.as_str(), ComponentExportKind::Instance, index, None);
        }
        component.section(&instances);
        component.section(&exports);
        component.finish()
    }

    pub(crate) fn signed(&self, key: &SecretKey) -> Vec<u8> {
        module::sign(&self.build(), key).unwrap()
    }
}

fn custom<'a>(name: &'a str, data: &'a [u8]) -> CustomSection<'a> {
    CustomSection {
        name: name.into(),
        data: data.into(),
    }
}

/// The path of a module's content.
pub(crate) fn content_path(file: &[u8]) -> String {
    format!("/modules/{}/content", Digest::of(file))
}

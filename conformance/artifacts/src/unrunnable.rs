//! Files that an agent must refuse, each for one reason. The text form of each stands above it.

use wasm_encoder::{
    CodeSection, Component, ComponentImportSection, ComponentTypeRef, ComponentTypeSection,
    Function, FunctionSection, InstanceSection, InstanceType, Module, ModuleArg, ModuleSection,
    PrimitiveValType, StartSection, TypeSection,
};

/// A core module, which is valid WebAssembly but no component: `(module)`.
pub fn core_module() -> Vec<u8> {
    Module::new().finish()
}

/// A component that imports nothing, exports nothing and does nothing: `(component)`.
pub fn empty_component() -> Vec<u8> {
    Component::new().finish()
}

/// A component that imports an interface that nobody offers. See [`component_importing`].
pub fn component_with_unknown_import() -> Vec<u8> {
    component_importing("acme:unknown/thing@1.0.0")
}

/// A component that does nothing and imports an interface with a function:
///
/// ```text
/// (component (import "NAME" (instance (export "anything" (func)))))
/// ```
pub fn component_importing(name: &str) -> Vec<u8> {
    let mut instance = InstanceType::new();
    instance
        .ty()
        .function()
        .params(std::iter::empty::<(&str, PrimitiveValType)>())
        .result(None);
    instance.export("anything", ComponentTypeRef::Func(0));
    let mut types = ComponentTypeSection::new();
    types.instance(&instance);
    let mut imports = ComponentImportSection::new();
    imports.import(name, ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}

/// A component that never finishes being instantiated:
///
/// ```text
/// (component
///   (core module $m (func $f (loop br 0)) (start $f))
///   (core instance (instantiate $m)))
/// ```
pub fn spinning_at_instantiation() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut spin = Function::new([]);
    spin.instructions()
        .loop_(wasm_encoder::BlockType::Empty)
        .br(0)
        .end()
        .end();
    let mut code = CodeSection::new();
    code.function(&spin);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&StartSection { function_index: 0 })
        .section(&code);

    let mut instances = InstanceSection::new();
    instances.instantiate(0, std::iter::empty::<(&str, ModuleArg)>());
    let mut component = Component::new();
    component
        .section(&ModuleSection(&module))
        .section(&instances);
    component.finish()
}

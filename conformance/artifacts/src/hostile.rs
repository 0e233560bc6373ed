//! Files that were made to hurt whoever reads or compiles them: too many parts, names that are no
//! text, code that takes for ever to compile. The text form of each stands above it.

use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentExportKind, ComponentExportSection,
    ComponentImportSection, ComponentInstanceSection, ComponentTypeRef, ComponentTypeSection,
    CustomSection, Function, FunctionSection, InstanceSection, InstanceType, Module, ModuleArg,
    ModuleSection, NestedComponentSection, PrimitiveValType, RawSection, TypeSection, ValType,
};

/// Stands in a file where bytes that are no UTF-8 will be.
const NAME_TO_DAMAGE: &str = "acme:hostile/XXXX";
/// No text in UTF-8 has these bytes (Unicode Standard, table 3-7).
const NO_UTF8: [u8; 4] = [0xff, 0xfe, 0xc0, 0x80];

/// A component that imports `count` functions (a validator bounds instances, but not these):
///
/// ```text
/// (component (import "thing0" (func)) (import "thing1" (func)) …)
/// ```
pub fn component_with_imports(count: u32) -> Vec<u8> {
    let mut imports = ComponentImportSection::new();
    for number in 0..count {
        let name = format!("thing{number}");
        imports.import(name.as_str(), ComponentTypeRef::Func(0));
    }
    let mut component = Component::new();
    component.section(&function_type()).section(&imports);
    component.finish()
}

/// A component that exports one function under `count` names:
///
/// ```text
/// (component
///   (import "it" (func $it))
///   (export "thing0" (func $it)) (export "thing1" (func $it)) …)
/// ```
pub fn component_with_exports(count: u32) -> Vec<u8> {
    let mut imports = ComponentImportSection::new();
    imports.import("it", ComponentTypeRef::Func(0));
    let mut exports = ComponentExportSection::new();
    for number in 0..count {
        let name = format!("thing{number}");
        exports.export(name.as_str(), ComponentExportKind::Func, 0, None);
    }
    let mut component = Component::new();
    component
        .section(&function_type())
        .section(&imports)
        .section(&exports);
    component.finish()
}

/// A component with `count` instances of a component inside it:
///
/// ```text
/// (component
///   (component $inner)
///   (instance (instantiate $inner)) (instance (instantiate $inner)) …)
/// ```
pub fn component_with_nested_instances(count: u32) -> Vec<u8> {
    let mut instances = ComponentInstanceSection::new();
    for _ in 0..count {
        instances.instantiate(0, no_component_arguments());
    }
    let mut component = Component::new();
    component
        .section(&NestedComponentSection(&Component::new()))
        .section(&instances);
    component.finish()
}

/// A component inside a component inside a component, `depth` times:
///
/// ```text
/// (component (component (component …)))
/// ```
pub fn component_nested_deeply(depth: u32) -> Vec<u8> {
    let mut inner = Component::new();
    for _ in 0..depth {
        let mut outer = Component::new();
        outer.section(&NestedComponentSection(&inner));
        inner = outer;
    }
    inner.finish()
}

/// A component with a type of an instance that has a type of an instance that has one, `depth`
/// times. Readers of types call themselves for each level:
///
/// ```text
/// (component (type (instance (type (instance (type …))))))
/// ```
pub fn component_with_types_nested_deeply(depth: u32) -> Vec<u8> {
    // Written as bytes, because an encoder copies each level into the next.
    const SECTION: u8 = 7;
    const ONE_TYPE: u8 = 1;
    const INSTANCE_OF_ONE: [u8; 3] = [0x42, 1, 1];
    const EMPTY_INSTANCE: [u8; 2] = [0x42, 0];
    let mut types = vec![ONE_TYPE];
    for _ in 0..depth {
        types.extend_from_slice(&INSTANCE_OF_ONE);
    }
    types.extend_from_slice(&EMPTY_INSTANCE);
    let mut component = Component::new();
    component.section(&RawSection {
        id: SECTION,
        data: &types,
    });
    component.finish()
}

/// A component in which every level instantiates the one inside it twice, so that `depth` levels
/// make two to the power of `depth` core instances out of a small file:
///
/// ```text
/// (component
///   (component $c … (component $a (core module $m) (core instance (instantiate $m))) …)
///   (instance (instantiate $c)) (instance (instantiate $c)))
/// ```
pub fn component_with_doubling_instances(depth: u32) -> Vec<u8> {
    let mut inner = with_core_module(&Module::new());
    for _ in 0..depth {
        let mut instances = ComponentInstanceSection::new();
        instances.instantiate(0, no_component_arguments());
        instances.instantiate(0, no_component_arguments());
        let mut outer = Component::new();
        outer
            .section(&NestedComponentSection(&inner))
            .section(&instances);
        inner = outer;
    }
    inner.finish()
}

/// A component that imports an instance whose name is not UTF-8.
pub fn component_with_invalid_utf8_name() -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut imports = ComponentImportSection::new();
    imports.import(NAME_TO_DAMAGE, ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    without_utf8(component.finish())
}

/// A component that exports an instance under a name that is not UTF-8.
pub fn component_with_invalid_utf8_export() -> Vec<u8> {
    let mut exports = ComponentExportSection::new();
    exports.export(NAME_TO_DAMAGE, ComponentExportKind::Instance, 0, None);
    let mut component = Component::new();
    component.section(&empty_instance()).section(&exports);
    without_utf8(component.finish())
}

/// A component with a custom section whose name is not UTF-8.
pub fn component_with_invalid_utf8_section() -> Vec<u8> {
    let mut component = Component::new();
    component.section(&CustomSection {
        name: NAME_TO_DAMAGE.into(),
        data: (&[]).into(),
    });
    without_utf8(component.finish())
}

/// A small component that takes minutes and gigabytes to compile. Every loop of one function
/// changes the same variables, so that each variable has another value in each of the loops:
///
/// ```text
/// (component
///   (core module $m
///     (func (local i32 i32 …)
///       (loop (loop … (local.set 0 (i32.add (local.get 0) (i32.const 1))) …
///         (br_if 0 (local.get 0))) (br_if 0 (local.get 0)))))
///   (core instance (instantiate $m)))
/// ```
pub fn compile_bomb() -> Vec<u8> {
    const LOOPS: u32 = 500;
    const VARIABLES: u32 = 5_000;
    let mut bomb = Function::new([(VARIABLES, ValType::I32)]);
    let mut code = bomb.instructions();
    for _ in 0..LOOPS {
        code.loop_(BlockType::Empty);
    }
    for variable in 0..VARIABLES {
        code.local_get(variable)
            .i32_const(1)
            .i32_add()
            .local_set(variable);
    }
    for depth in 0..LOOPS {
        code.local_get(depth).br_if(0).end();
    }
    code.end();
    with_core_module(&with_functions([&bomb])).finish()
}

/// A component with a core module of `count` functions that do nothing.
pub fn component_with_functions(count: u32) -> Vec<u8> {
    let mut nothing = Function::new([]);
    nothing.instructions().end();
    let functions = std::iter::repeat_n(&nothing, count as usize);
    with_core_module(&with_functions(functions)).finish()
}

/// A component with a core function whose body takes at least `bytes`.
pub fn component_with_function_of(bytes: u32) -> Vec<u8> {
    let mut long = Function::new([]);
    let mut code = long.instructions();
    for _ in 0..bytes {
        code.nop();
    }
    code.end();
    with_core_module(&with_functions([&long])).finish()
}

/// A component with a core module of `count` types.
pub fn component_with_types(count: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    for _ in 0..count {
        types.ty().function([], []);
    }
    let mut module = Module::new();
    module.section(&types);
    with_core_module(&module).finish()
}

fn with_functions<'a>(bodies: impl IntoIterator<Item = &'a Function>) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
    for body in bodies {
        functions.function(0);
        code.function(body);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    module
}

fn with_core_module(module: &Module) -> Component {
    let mut instances = InstanceSection::new();
    instances.instantiate(0, std::iter::empty::<(&str, ModuleArg)>());
    let mut component = Component::new();
    component
        .section(&ModuleSection(module))
        .section(&instances);
    component
}

fn function_type() -> ComponentTypeSection {
    let mut types = ComponentTypeSection::new();
    types
        .function()
        .params(std::iter::empty::<(&str, PrimitiveValType)>())
        .result(None);
    types
}

fn empty_instance() -> ComponentInstanceSection {
    let mut instances = ComponentInstanceSection::new();
    instances.export_items(std::iter::empty::<(&str, ComponentExportKind, u32)>());
    instances
}

fn no_component_arguments()
-> impl ExactSizeIterator<Item = (&'static str, ComponentExportKind, u32)> {
    std::iter::empty()
}

/// Puts bytes that are no UTF-8 over the end of the placeholder.
fn without_utf8(mut file: Vec<u8>) -> Vec<u8> {
    let position = file
        .windows(NAME_TO_DAMAGE.len())
        .position(|window| window == NAME_TO_DAMAGE.as_bytes())
        .expect("the file holds the placeholder");
    let end = position + NAME_TO_DAMAGE.len();
    file[end - NO_UTF8.len()..end].copy_from_slice(&NO_UTF8);
    file
}

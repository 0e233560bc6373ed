//! Components that take more than they may while they are instantiated. The text form of each stands
//! above it.

use wasm_encoder::{
    BlockType, CodeSection, Component, Function, FunctionSection, InstanceSection, MemorySection,
    MemoryType, Module, ModuleArg, ModuleSection, RefType, StartSection, TableSection, TableType,
    TypeSection,
};

/// A component with `instances` memories of so many pages of 64 KiB from the start:
///
/// ```text
/// (component (core module $m (memory PAGES)) (core instance (instantiate $m)) …)
/// ```
pub fn component_with_memory(pages: u64, instances: usize) -> Vec<u8> {
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: pages,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut module = Module::new();
    module.section(&memories);
    instantiated(&module, instances)
}

/// A component with a table of so many elements from the start:
///
/// ```text
/// (component (core module $m (table ELEMENTS funcref)) (core instance (instantiate $m)))
/// ```
pub fn component_with_table(elements: u64) -> Vec<u8> {
    let mut module = Module::new();
    module.section(&table(elements));
    instantiated(&module, 1)
}

/// A component that grows a table while it is instantiated, and traps when it may not grow further:
///
/// ```text
/// (component
///   (core module $m
///     (table 0 funcref)
///     (func $f (loop
///       (if (i32.eq (table.grow (ref.null func) (i32.const STEP)) (i32.const -1)) (then unreachable))
///       (br 0)))
///     (start $f))
///   (core instance (instantiate $m)))
/// ```
pub fn component_growing_table(step: i32) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut grow = Function::new([]);
    grow.instructions()
        .loop_(BlockType::Empty)
        .ref_null(wasm_encoder::HeapType::FUNC)
        .i32_const(step)
        .table_grow(0)
        .i32_const(-1)
        .i32_eq()
        .if_(BlockType::Empty)
        .unreachable()
        .end()
        .br(0)
        .end()
        .end();
    let mut code = CodeSection::new();
    code.function(&grow);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&table(0))
        .section(&StartSection { function_index: 0 })
        .section(&code);
    instantiated(&module, 1)
}

fn table(minimum: u64) -> TableSection {
    let mut tables = TableSection::new();
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        minimum,
        maximum: None,
        table64: false,
        shared: false,
    });
    tables
}

/// A component that instantiates one core module.
fn instantiated(module: &Module, count: usize) -> Vec<u8> {
    let mut instances = InstanceSection::new();
    for _ in 0..count {
        instances.instantiate(0, std::iter::empty::<(&str, ModuleArg)>());
    }
    let mut component = Component::new();
    component
        .section(&ModuleSection(module))
        .section(&instances);
    component.finish()
}

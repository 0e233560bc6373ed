//! `wasi:config`: the values that the manifest gives a microservice. One interface under all the
//! names that it has had; their functions are the same, so they are linked from one definition.

use haar_protocol::grants::{CONFIG_RUNTIME_VERSIONS, CONFIG_STORE_VERSIONS};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::state::State;

/// `error` of `wasi:config/store`, `config-error` of `wasi:config/runtime`. Neither is ever
/// answered: values come with the assignment, and are there.
#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    #[allow(dead_code, reason = "part of the type that guests import")]
    Upstream(String),
    #[component(name = "io")]
    #[allow(dead_code, reason = "part of the type that guests import")]
    Io(String),
}

type Answer<T> = wasmtime::Result<(Result<T, Error>,)>;

/// Links the interface in every version that is offered.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    for version in CONFIG_STORE_VERSIONS {
        add(linker, &format!("wasi:config/store@{version}"))?;
    }
    for version in CONFIG_RUNTIME_VERSIONS {
        add(linker, &format!("wasi:config/runtime@{version}"))?;
    }
    Ok(())
}

fn add(linker: &mut Linker<State>, interface: &str) -> wasmtime::Result<()> {
    let mut instance = linker.instance(interface)?;
    instance.func_wrap("get", get)?;
    instance.func_wrap("get-all", get_all)
}

fn get(store: StoreContextMut<'_, State>, (key,): (String,)) -> Answer<Option<String>> {
    Ok((Ok(store.data().configuration.get(&key).cloned()),))
}

fn get_all(store: StoreContextMut<'_, State>, (): ()) -> Answer<Vec<(String, String)>> {
    let configuration = store.data().configuration.iter();
    let pairs = configuration.map(|(key, value)| (key.clone(), value.clone()));
    Ok((Ok(pairs.collect()),))
}

//! The local API: what a microservice sees of the world, one thin file for each interface. The
//! WIT types stay in here; a guest's mistake is a typed answer, never a panic.

pub mod bindings;
pub mod state;

pub mod messaging;
pub mod timers;
pub mod node;
pub mod system;
pub mod configuration;
pub mod key_value;
pub mod history;
pub mod logging;
pub mod stdio;
pub mod files;
pub mod wasi;
mod sockets;

use haar_protocol::grants::Grants;
use wasmtime::Engine;
use wasmtime::component::Linker;

use state::State;

/// Everything that every microservice may import. What is not in here can't be reached:
/// instantiation refuses a component that asks for more.
///
/// # Errors
/// Never in practice: when two interfaces have one name.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    sockets::add_to_linker(&mut linker)?;
    bindings::add_to_linker(&mut linker)?;
    configuration::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Adds what microservices with these grants may import too.
///
/// # Errors
/// As above.
pub fn add_granted(linker: &mut Linker<State>, grants: &Grants) -> wasmtime::Result<()> {
    if grants.key_value {
        key_value::add_to_linker(linker)?;
    }
    if !grants.system.is_empty() {
        system::add_to_linker(linker)?;
    }
    Ok(())
}

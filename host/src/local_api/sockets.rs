//! `wasi:sockets`, which programs of many toolchains import whether they connect or not. No socket is
//! ever opened: what would make one, or ask for the address of a name, is answered with
//! `access-denied`. Everything else needs a socket, which no guest has.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType, WasmStr};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};
use wasmtime_wasi_io::bindings::wasi::io::error::Error;

use super::state::State;

/// The one thing that a guest gets: the network, of which it reaches nothing.
struct Nothing;

/// Interfaces with what can't be called, because it takes a socket: the methods of each resource. By
/// hand and without types: the code of typed functions would be many times as large.
const INTERFACES: [(&str, &[(&str, &str)]); 4] = [
    ("network", &[("network", "")]),
    (
        "ip-name-lookup",
        &[("resolve-address-stream", "resolve-next-address subscribe")],
    ),
    (
        "tcp",
        &[(
            "tcp-socket",
            "start-bind finish-bind start-connect finish-connect start-listen finish-listen accept \
             local-address remote-address is-listening address-family set-listen-backlog-size \
             keep-alive-enabled set-keep-alive-enabled keep-alive-idle-time \
             set-keep-alive-idle-time keep-alive-interval set-keep-alive-interval \
             keep-alive-count set-keep-alive-count hop-limit set-hop-limit receive-buffer-size \
             set-receive-buffer-size send-buffer-size set-send-buffer-size subscribe shutdown",
        )],
    ),
    (
        "udp",
        &[
            (
                "udp-socket",
                "start-bind finish-bind stream local-address remote-address address-family \
                 unicast-hop-limit set-unicast-hop-limit receive-buffer-size \
                 set-receive-buffer-size send-buffer-size set-send-buffer-size subscribe",
            ),
            ("incoming-datagram-stream", "receive subscribe"),
            ("outgoing-datagram-stream", "check-send send subscribe"),
        ],
    ),
];

/// Links all of it, for every component.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let name = |interface: &str| format!("wasi:sockets/{interface}@0.2.0");
    for (interface, resources) in INTERFACES {
        let mut linked = linker.instance(&name(interface))?;
        for (resource, methods) in resources {
            linked.resource(resource, ResourceType::host::<Nothing>(), dropped)?;
            for method in methods.split_ascii_whitespace() {
                linked.func_new(&format!("[method]{resource}.{method}"), |_, _, _, _| {
                    wasmtime::bail!("a method of a socket, and there is none")
                })?;
            }
        }
    }
    let mut linked = linker.instance(&name("instance-network"))?;
    linked.func_wrap("instance-network", network)?;
    let mut linked = linker.instance(&name("network"))?;
    linked.func_wrap("network-error-code", error_code)?;
    let mut linked = linker.instance(&name("ip-name-lookup"))?;
    linked.func_wrap("resolve-addresses", resolve)?;
    let mut linked = linker.instance(&name("tcp-create-socket"))?;
    linked.func_wrap("create-tcp-socket", create)?;
    let mut linked = linker.instance(&name("udp-create-socket"))?;
    linked.func_wrap("create-udp-socket", create)
}

type Caller<'a> = StoreContextMut<'a, State>;
/// A socket, or the addresses of a name.
type Denied = (Result<Resource<Nothing>, ErrorCode>,);

fn network(mut caller: Caller<'_>, (): ()) -> wasmtime::Result<(Resource<Nothing>,)> {
    Ok((caller.data_mut().table.push(Nothing)?,))
}

fn dropped(mut caller: Caller<'_>, index: u32) -> wasmtime::Result<()> {
    let network = Resource::<Nothing>::new_own(index);
    caller.data_mut().table.delete(network)?;
    Ok(())
}

fn create(_: Caller<'_>, _: (IpAddressFamily,)) -> wasmtime::Result<Denied> {
    Ok((Err(ErrorCode::AccessDenied),))
}

fn resolve(_: Caller<'_>, _: (Resource<Nothing>, WasmStr)) -> wasmtime::Result<Denied> {
    Ok((Err(ErrorCode::AccessDenied),))
}

/// No error of a stream is one of the network.
fn error_code(_: Caller<'_>, _: (Resource<Error>,)) -> wasmtime::Result<(Option<ErrorCode>,)> {
    Ok((None,))
}

//! Generated from `wit/`: what microservices import from us, and what we call in them. The three
//! exports are worlds of their own here, because a microservice may leave each of them out.

#![allow(missing_docs, reason = "generated; the documentation stands in wit/")]

use wasmtime::component::{HasSelf, Linker};

use super::state::State;

pub mod imports {
    //! The interfaces that the agent offers beside `wasi:*` of wasmtime-wasi.
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package haar:host;
            world imports {
                import haar:local/messaging@0.1.0;
                import haar:local/timers@0.1.0;
                import haar:local/history@0.1.0;
                import haar:local/node@0.1.0;
                import wasi:logging/logging@0.1.0-draft;
            }
        ",
        world: "haar:host/imports",
        imports: {
            "haar:local/timers@0.1.0": async | trappable,
            "haar:local/messaging.publish": async | trappable,
            "haar:local/messaging.publish-batch": async | trappable,
            "haar:local/history.read": async | trappable,
            default: trappable,
        },
    });
}

pub mod system {
    //! `haar:local/system`, which needs a grant.
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package haar:host;
            world measuring { import haar:local/system@0.1.0; }
        ",
        world: "haar:host/measuring",
        imports: { default: async | trappable },
    });
}

pub mod handler {
    //! `haar:local/handler`, called for every message.
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package haar:host;
            world handling { export haar:local/handler@0.1.0; }
        ",
        world: "haar:host/handling",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub mod lifecycle {
    //! `haar:local/lifecycle`.
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package haar:host;
            world living { export haar:local/lifecycle@0.1.0; }
        ",
        world: "haar:host/living",
        exports: { default: async },
    });
}

pub mod ticks {
    //! `haar:local/ticks`.
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package haar:host;
            world ticking { export haar:local/ticks@0.1.0; }
        ",
        world: "haar:host/ticking",
        exports: { default: async },
    });
}

/// Links our own interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    imports::Imports::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

//! Plain Rust with wit-bindgen, which knows the WIT and nothing of Haar's SDK. Answers each message with
//! itself; `fail` makes it fail. It exports only what it has.

#![allow(
    unsafe_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "half of it is generated"
)]

#[cfg(target_arch = "wasm32")]
mod guest {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package conformance:guests;
            world plain {
                import haar:local/messaging@0.1.0;
                export haar:local/handler@0.1.0;
            }
        ",
        world: "conformance:guests/plain",
        generate_all,
    });

    use exports::haar::local::handler::{Delivery, Guest, Rejection};
    use haar::local::messaging;

    struct Plain;

    impl Guest for Plain {
        fn handle(message: Delivery) -> Result<(), Rejection> {
            if message.body == b"fail" {
                panic!("the message asks for it");
            }
            let answer = [b"rust: ", &message.body[..]].concat();
            match messaging::publish("out", &answer, &message.headers) {
                Ok(_) => Ok(()),
                Err(error) => Err(Rejection::Retry(format!("{error:?}"))),
            }
        }
    }

    export!(Plain);
}

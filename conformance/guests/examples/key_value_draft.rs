//! Uses `wasi:keyvalue@0.2.0-draft` through bindings of its own, as components do that know nothing
//! of Haar's SDK. For every message it goes through all functions and logs what came of it.

use haar_guest::{Message, Microservice, Rejection, log};

#[derive(Default)]
struct KeyValueDraft;

impl Microservice for KeyValueDraft {
    fn handle(&mut self, _message: Message) -> Result<(), Rejection> {
        log::info!("{}", all_functions());
        Ok(())
    }
}

#[cfg(target_arch = "wasm32")]
#[allow(
    unsafe_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package conformance:guests;
            world key-value-draft {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
            }
        ",
        world: "conformance:guests/key-value-draft",
        generate_all,
    });
}

#[cfg(target_arch = "wasm32")]
fn all_functions() -> String {
    use bindings::wasi::keyvalue0_2_0_draft::{atomics, batch, store};

    let go = || -> Result<String, store::Error> {
        let bucket = store::open("default")?;
        bucket.set("colour", b"grey")?;
        let colour = bucket.get("colour")?;
        let sum = atomics::increment(&bucket, "visits", 2)?;
        let numbered = (0..1_100).map(|number| (format!("k{number:04}"), b"v".to_vec()));
        let (keys, pairs): (Vec<_>, Vec<_>) = numbered.map(|pair| (pair.0.clone(), pair)).unzip();
        for pairs in pairs.chunks(1_000) {
            batch::set_many(&bucket, pairs)?;
        }
        let got = batch::get_many(&bucket, &["k0007".to_owned(), "none".to_owned()])?;
        let first = bucket.list_keys(None)?;
        let second = bucket.list_keys(first.cursor)?;
        for keys in keys.chunks(1_000) {
            batch::delete_many(&bucket, keys)?;
        }
        bucket.delete("colour")?;
        Ok(format!(
            "colour={} sum={sum} got={}{} pages={}+{} end={} exists={}",
            String::from_utf8_lossy(&colour.unwrap_or_default()),
            got[0].is_some(),
            got[1].is_some(),
            first.keys.len(),
            second.keys.len(),
            second.cursor.is_none(),
            bucket.exists("k0007")? || bucket.exists("colour")?,
        ))
    };
    go().unwrap_or_else(|error| format!("{error:?}"))
}

#[cfg(not(target_arch = "wasm32"))]
fn all_functions() -> String {
    "only components have an agent to talk to".to_owned()
}

haar_guest::export!(KeyValueDraft);

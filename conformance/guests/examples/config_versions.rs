//! Reads its configuration through every version of `wasi:config` that others' microservices import,
//! and logs for each `VERSION INTERFACE: VALUE COUNT ABSENT`: the value of `colour`, how many keys
//! there are in all, and whether a key that is not there is told to be absent.

use haar_guest::{Microservice, log};

#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    reason = "generated"
)]
mod bindings {
    wit_bindgen::generate!({
        inline: "
            package haar:config-versions;

            world versions {
                import wasi:config/store@0.2.0-rc.1;
                import wasi:config/store@0.2.0-draft;
                import wasi:config/store@0.2.0-draft-2024-09-27;
                import wasi:config/runtime@0.2.0-draft;
            }

            package wasi:config@0.2.0-rc.1 {
                interface store {
                    variant error { upstream(string), io(string) }
                    get: func(key: string) -> result<option<string>, error>;
                    get-all: func() -> result<list<tuple<string, string>>, error>;
                }
            }

            package wasi:config@0.2.0-draft-2024-09-27 {
                interface store {
                    variant error { upstream(string), io(string) }
                    get: func(key: string) -> result<option<string>, error>;
                    get-all: func() -> result<list<tuple<string, string>>, error>;
                }
            }

            package wasi:config@0.2.0-draft {
                interface store {
                    variant error { upstream(string), io(string) }
                    get: func(key: string) -> result<option<string>, error>;
                    get-all: func() -> result<list<tuple<string, string>>, error>;
                }
                interface runtime {
                    variant config-error { upstream(string), io(string) }
                    get: func(key: string) -> result<option<string>, config-error>;
                    get-all: func() -> result<list<tuple<string, string>>, config-error>;
                }
            }
        ",
        generate_all,
    });
}

use bindings::wasi::{config0_2_0_draft, config0_2_0_draft_2024_09_27, config0_2_0_rc_1};

#[derive(Default)]
struct ConfigVersions;

impl Microservice for ConfigVersions {
    fn start(&mut self) -> Result<(), String> {
        macro_rules! tell {
            ($name:literal, $interface:path) => {{
                use $interface as interface;
                let value = interface::get("colour").map_err(|error| format!("{error:?}"))?;
                let absent = interface::get("absent").map_err(|error| format!("{error:?}"))?;
                let all = interface::get_all().map_err(|error| format!("{error:?}"))?;
                log::info!(
                    "{}: {} {} {}",
                    $name,
                    value.unwrap_or_default(),
                    all.len(),
                    absent.is_none()
                );
            }};
        }
        tell!("0.2.0-rc.1 store", config0_2_0_rc_1::store);
        tell!("0.2.0-draft store", config0_2_0_draft::store);
        tell!(
            "0.2.0-draft-2024-09-27 store",
            config0_2_0_draft_2024_09_27::store
        );
        tell!("0.2.0-draft runtime", config0_2_0_draft::runtime);
        Ok(())
    }
}

haar_guest::export!(ConfigVersions);

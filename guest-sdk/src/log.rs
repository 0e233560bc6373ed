//! Log lines of the microservice; `wasi:logging` is behind them. They go to the node's log of this
//! instance and from there to the controller, within the limit of lines per second.
//!
//! ```no_run
//! use haar_guest::log;
//!
//! let celsius = 21.5;
//! log::info!("measured {celsius} degrees");
//! log::warn!(context: "sensor", "no answer for {} s", 30);
//! ```

use crate::agent;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The finest steps.
    Trace,
    /// For whoever debugs the microservice.
    Debug,
    /// What a reader wants to know of normal work.
    Info,
    /// Something is not as it should be, work goes on.
    Warn,
    /// Something failed.
    Error,
    /// The microservice can't go on.
    Critical,
}

/// Writes one line. `context` names the part of the microservice that speaks; it may be empty.
pub fn write(level: Level, context: &str, text: &str) {
    agent::log(level, context, text);
}

/// Writes one line at the level given, formatted like `format!`, with or without `context: …,`.
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:expr, context: $context:expr, $($text:tt)+) => {
        $crate::log::write($level, $context, &::std::format!($($text)+))
    };
    ($level:expr, $($text:tt)+) => {
        $crate::log::write($level, "", &::std::format!($($text)+))
    };
}

/// Makes the macro of one level. `$dollar` is a dollar sign: a macro cannot write it otherwise.
macro_rules! level_macro {
    ($dollar:tt $name:ident, $hidden:ident, $level:ident, $meaning:literal) => {
        #[doc = $meaning]
        #[doc = "Formatted like `format!`; `context: EXPRESSION,` in front names the part that speaks."]
        #[doc(hidden)]
        #[macro_export]
        macro_rules! $hidden {
            ($dollar($dollar text:tt)+) => {
                $crate::__log!($crate::log::Level::$level, $dollar($dollar text)+)
            };
        }
        #[doc(inline)]
        pub use $hidden as $name;
    };
}

level_macro!($ trace, __log_trace, Trace, "Logs the finest steps.");
level_macro!($ debug, __log_debug, Debug, "Logs for whoever debugs the microservice.");
level_macro!($ info, __log_info, Info, "Logs what a reader wants to know of normal work.");
level_macro!($ warn, __log_warn, Warn, "Logs that something is not as it should be, and work goes on.");
level_macro!($ error, __log_error, Error, "Logs that something failed.");
level_macro!($ critical, __log_critical, Critical, "Logs that the microservice can't go on.");

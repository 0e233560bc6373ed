//! The trait that a microservice implements. The component's exports call it, or the test harness;
//! nothing else does.

use crate::message::{Message, Rejection};
use crate::timers::Tick;

/// A microservice: its state is the value itself, made with `Default` before the first call.
///
/// Every function has a default, so implement those that matter. Calls come one at a time. The
/// texts in errors are for the person who reads the log.
pub trait Microservice: Default + 'static {
    /// The first call: read the configuration, set timers. An error stops the instance, and its
    /// text goes to the log and to the node's status.
    fn start(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Handles one message; `Ok` acknowledges it. The default discards it, naming the inlet.
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        Err(Rejection::discard(format!(
            "this microservice handles no messages, and got one on the inlet `{}`",
            message.inlet
        )))
    }

    /// Handles one tick of a timer. An error is logged, and the instance goes on. The default is an
    /// error that names the timer.
    fn tick(&mut self, tick: Tick) -> Result<(), String> {
        Err(format!(
            "this microservice handles no ticks, and got one of the timer `{}`",
            tick.name
        ))
    }

    /// The values behind [`config`](crate::config) have changed. An error is logged, and the
    /// instance goes on. The default does nothing: right for whoever reads values when needed.
    fn configuration_changed(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// The last call into an instance that is asked to stop: finish what must not be lost.
    fn stop(&mut self) {}
}

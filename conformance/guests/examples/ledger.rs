//! Keeps account of the sequences of each source, in its key-value store, so that the account goes
//! over restarts and power cuts. Logs the sums twice a second, as one line of JSON:
//!
//! | key | meaning |
//! | --- | --- |
//! | `messages` | messages that were handled, repeats too |
//! | `missing` | sequences that were jumped over |
//! | `repeats` | messages that had been handled before |
//! | `unexplained` | repeats that came as a first attempt |
//! | `last` | the last sequence of the source that was heard last |

use std::time::Duration;

use haar_guest::key_value::{self, Bucket};
use haar_guest::{Message, Microservice, Rejection, Tick, log, timers};

const REPORT_PERIOD: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Ledger {
    last: u64,
}

impl Microservice for Ledger {
    fn start(&mut self) -> Result<(), String> {
        Ok(timers::every("report", REPORT_PERIOD)?)
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        self.count(&message)
            .map_err(|error| Rejection::retry(error.to_string()))
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        let bucket = key_value::open("").map_err(|error| error.to_string())?;
        let sum = |name: &str| number(&bucket, name).map_err(|error| error.to_string());
        log::info!(
            "{{\"messages\":{},\"missing\":{},\"repeats\":{},\"unexplained\":{},\"last\":{}}}",
            sum("messages")?,
            sum("missing")?,
            sum("repeats")?,
            sum("unexplained")?,
            self.last
        );
        Ok(())
    }
}

impl Ledger {
    fn count(&mut self, message: &Message) -> Result<(), key_value::KeyValueError> {
        let bucket = key_value::open("")?;
        let source = &message.source;
        let key = format!(
            "last of {}/{}.{}",
            source.node, source.microservice, source.outlet
        );
        let last = number(&bucket, &key)?;
        self.last = message.sequence;
        bucket.increment("messages", 1)?;
        if message.sequence <= last {
            bucket.increment("repeats", 1)?;
            if message.attempt == 1 {
                log::error!("sequence {} came again after {last}", message.sequence);
                bucket.increment("unexplained", 1)?;
            }
            return Ok(());
        }
        let jumped = message.sequence - last - 1;
        if jumped > 0 {
            log::error!("sequence {} came after {last}", message.sequence);
            bucket.increment("missing", jumped.cast_signed())?;
        }
        bucket.set(&key, message.sequence.to_string())
    }
}

fn number(bucket: &Bucket, key: &str) -> Result<u64, key_value::KeyValueError> {
    let text = bucket.get_text(key)?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

haar_guest::export!(Ledger);

//! Amounts as people write them: `16MiB`, `250ms`, `10%`. Parsed at the border into bytes and
//! milliseconds, written back in the largest unit that is exact. They end where all numbers end, at
//! [`NUMBER_MAX`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::InvalidId;
use crate::number::NUMBER_MAX;

const BYTE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

const PERCENT_UNITS: [(&str, u64); 1] = [("%", 1)];

/// Of two names of a unit the last one is written.
const TIME_UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("min", 60_000),
    ("s", 1_000),
];

/// A number of bytes. Written as a whole number with one of B, kB, KiB, MB, MiB, GB, GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^[0-9]+ *(B|kB|KiB|MB|MiB|GB|GiB)$")))]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

/// A length of time in milliseconds. Written as a whole number with one of ms, s, min (or m), h, d.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^[0-9]+ *(ms|s|m|min|h|d)$")))]
#[serde(try_from = "String", into = "String")]
pub struct Millis(pub u64);

/// A share of 0 to 100 percent. Written as a whole number with `%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = r"^(100|[0-9]{1,2}) *%$")))]
#[serde(try_from = "String", into = "String")]
pub struct Percent(pub u32);

impl FromStr for Percent {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let percent = parse(text, &PERCENT_UNITS, "a share", "10%")?;
        match u32::try_from(percent) {
            Ok(percent) if percent <= 100 => Ok(Self(percent)),
            _ => Err(InvalidId(format!("`{text}` is more than 100%"))),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}%", self.0)
    }
}

impl TryFrom<String> for Percent {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Percent> for String {
    fn from(value: Percent) -> String {
        value.to_string()
    }
}

fn parse(text: &str, units: &[(&str, u64)], what: &str, example: &str) -> Result<u64, InvalidId> {
    let invalid = || {
        let mut names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        names.sort_by_key(|name| {
            units
                .iter()
                .find(|(unit, _)| unit == name)
                .map(|(_, factor)| *factor)
        });
        InvalidId(format!(
            "`{text}` is not {what}: write a whole number and one of {}, such as `{example}`",
            names.join(", ")
        ))
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| invalid())?;
    let unit = text[digits..].trim_start();
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(invalid)?;
    let amount = number.checked_mul(*factor);
    amount
        .filter(|amount| *amount <= NUMBER_MAX)
        .ok_or_else(|| InvalidId(format!("`{text}` is too much: amounts end at {NUMBER_MAX}")))
}

fn write(formatter: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    let best = units
        .iter()
        .filter(|(_, factor)| amount.is_multiple_of(*factor) && amount >= *factor)
        .max_by_key(|(_, factor)| *factor);
    match best {
        Some((name, factor)) => write!(formatter, "{}{name}", amount / factor),
        None => write!(
            formatter,
            "0{}",
            units
                .iter()
                .find(|(_, factor)| *factor == 1)
                .map_or("", |(name, _)| name)
        ),
    }
}

/// Numbers of bytes as people compare them: in one unit, the largest that is no more than `least`, with a
/// decimal where they are not whole.
pub fn in_one_unit(least: u64, amounts: [u64; 4]) -> [String; 4] {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
    let unit = units.into_iter().find(|(_, bits)| least >> bits > 0);
    let (name, bits) = unit.unwrap_or(("B", 0));
    amounts.map(|amount| {
        let (whole, rest) = (amount >> bits, amount & ((1 << bits) - 1));
        match (rest * 10 + (1 << bits) / 2) >> bits {
            0 => format!("{whole}{name}"),
            10 => format!("{}{name}", whole + 1),
            tenth => format!("{whole}.{tenth}{name}"),
        }
    })
}

macro_rules! quantity {
    ($name:ident, $units:expr, $what:expr, $example:expr) => {
        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text, &$units, $what, $example).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(formatter, self.0, &$units)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

quantity!(ByteSize, BYTE_UNITS, "a size", "16MiB");
quantity!(Millis, TIME_UNITS, "a length of time", "5s");

//! The detector's configuration, read and checked once.

use std::collections::BTreeMap;

use haar_guest::config;

use crate::band::Rules;

const MINIMUM_PREFIX: &str = "minimum_deviation.";

/// What the configuration says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// How bands are made.
    pub(crate) rules: Rules,
    /// The quantities that are watched, with the least width of their bands.
    minimum_deviations: BTreeMap<String, f64>,
}

impl Default for Settings {
    fn default() -> Self {
        let minimum_deviations = [
            ("load", 1.0),
            ("cpu_percent", 20.0),
            ("memory_used_percent", 5.0),
            ("temperature_celsius", 5.0),
        ];
        Self {
            rules: Rules {
                sigmas: 4.0,
                warm_up: 30,
                window: 120,
            },
            minimum_deviations: minimum_deviations
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        }
    }
}

impl Settings {
    /// Reads the configuration. What it leaves out is as in `default`.
    pub(crate) fn read() -> Result<Self, String> {
        let mut settings = Self::default();
        let rules = &mut settings.rules;
        rules.sigmas = config::parse("sigmas")?.unwrap_or(rules.sigmas);
        rules.warm_up = config::parse("warm_up")?.unwrap_or(rules.warm_up);
        rules.window = config::parse("window")?.unwrap_or(rules.window);
        at_least_one("sigmas", rules.sigmas)?;
        at_least_one("warm_up", f64::from(rules.warm_up))?;
        at_least_one("window", f64::from(rules.window))?;
        for (key, value) in config::get_all()? {
            let Some(quantity) = key.strip_prefix(MINIMUM_PREFIX) else {
                continue;
            };
            match value.parse::<f64>() {
                Ok(minimum) if minimum > 0.0 && minimum.is_finite() => {
                    settings
                        .minimum_deviations
                        .insert(quantity.to_owned(), minimum);
                }
                _ => {
                    return Err(format!(
                        "the configuration `{key}` cannot be `{value}`: it must be a number above 0"
                    ));
                }
            }
        }
        Ok(settings)
    }

    /// The least width of the band of `quantity`, or `None` when it is not watched. All zones of
    /// `temperature_celsius.ZONE` share one value unless a zone has its own.
    pub(crate) fn minimum_deviation(&self, quantity: &str) -> Option<f64> {
        let family = quantity.split('.').next()?;
        self.minimum_deviations
            .get(quantity)
            .or_else(|| self.minimum_deviations.get(family))
            .copied()
    }
}

fn at_least_one(key: &str, value: f64) -> Result<(), String> {
    if value >= 1.0 && value.is_finite() {
        Ok(())
    } else {
        Err(format!(
            "the configuration `{key}` cannot be `{value}`: it must be at least 1"
        ))
    }
}

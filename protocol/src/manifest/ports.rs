//! Outlets and inlets in a manifest: a media type alone, or a map with more about the port.

use serde::{Deserialize, Serialize};

use crate::ids::MediaType;
use crate::limits::Retention;

/// An outlet or inlet. Written as its media type when there is nothing else to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(from = "Form", into = "Form")]
pub struct Port {
    /// The only type of message that passes.
    pub media_type: MediaType,
    /// How much is kept of what passes, for the microservice's own queries; nothing when left out.
    pub history: Option<Retention>,
}

impl From<MediaType> for Port {
    fn from(media_type: MediaType) -> Self {
        Self {
            media_type,
            history: None,
        }
    }
}

/// The two ways to write a port.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum Form {
    /// A media type alone.
    Short(MediaType),
    /// More about the port.
    Long(Described),
}

/// A port of which more is said than its media type.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(rename = "DescribedPort", deny_unknown_fields)
)]
struct Described {
    /// The only type of message that passes.
    #[serde(rename = "type")]
    media_type: MediaType,
    /// How much is kept of what passes, for the microservice's own queries; nothing when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Retention"))]
    history: Option<Retention>,
}

impl From<Form> for Port {
    fn from(form: Form) -> Self {
        match form {
            Form::Short(media_type) => Port::from(media_type),
            Form::Long(described) => Port {
                media_type: described.media_type,
                history: described.history,
            },
        }
    }
}

impl From<Port> for Form {
    fn from(port: Port) -> Self {
        match port.history {
            None => Form::Short(port.media_type),
            history => Form::Long(Described {
                media_type: port.media_type,
                history,
            }),
        }
    }
}

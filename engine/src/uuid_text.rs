//! Ids as text in JSON.

use serde::{Deserialize, Deserializer, Serializer};
use uuid::Uuid;

/// For `serde(with)`.
pub fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// For `serde(with)`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

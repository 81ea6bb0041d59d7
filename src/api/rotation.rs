//! When versions are replaced.

use jiff::SignedDuration;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Lifetime;

/// How long a replaced version still passes where nobody says otherwise.
const DEFAULT_OVERLAP: SignedDuration = SignedDuration::from_hours(24);

/// When versions are replaced, and how long a replaced one still passes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.every) || !has(self.overlap) || int(self.overlap.substring(0, self.overlap.size() - 1)) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}[self.overlap.substring(self.overlap.size() - 1)] < int(self.every.substring(0, self.every.size() - 1)) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}[self.every.substring(self.every.size() - 1)]")
    .message("overlap must be shorter than every").field_path(".overlap"))]
pub struct Rotation {
    /// The longest time between two activations, such as `30d`. Up to a tenth of it is taken off, by the UID of the ApiKey, so that
    /// keys that were made together are not replaced together. Absent: only when `revision` is raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = "^[1-9][0-9]{0,4}[smhdw]$"))]
    pub every: Option<String>,
    /// How long a replaced version still passes (default `24h`, or half of `every` where that is shorter), never past the end of the
    /// key. Lowering it shortens what is retiring; raising it extends nothing. `0s` ends a replaced version at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = "^(0|[1-9][0-9]{0,4})[smhdw]$"))]
    pub overlap: Option<String>,
}

impl Rotation {
    /// The longest time between two activations. A text that the schema would have refused counts as none.
    #[must_use]
    pub fn interval(&self) -> Option<SignedDuration> {
        self.every
            .as_deref()
            .and_then(|text| text.parse::<Lifetime>().ok())
            .map(Lifetime::duration)
    }

    /// How long a replaced version still passes, of a rotation that may not be declared. A text that the schema would have refused
    /// counts as no time at all, so that nothing lives longer than was meant.
    #[must_use]
    pub fn overlap_of(rotation: Option<&Self>) -> SignedDuration {
        match rotation.and_then(|rotation| rotation.overlap.as_deref()) {
            Some(text) => text
                .parse::<Lifetime>()
                .map_or(SignedDuration::ZERO, Lifetime::duration),
            None => rotation
                .and_then(Self::interval)
                .map_or(DEFAULT_OVERLAP, |every| (every / 2).min(DEFAULT_OVERLAP)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(every: Option<&str>, overlap: Option<&str>) -> Rotation {
        Rotation {
            every: every.map(ToOwned::to_owned),
            overlap: overlap.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn the_overlap_is_what_is_said_else_a_day_else_half_the_interval() {
        let overlap =
            |every, overlap| Rotation::overlap_of(Some(&rotation(every, overlap))).as_secs();
        assert_eq!(Rotation::overlap_of(None).as_secs(), 86_400);
        assert_eq!(overlap(Some("30d"), None), 86_400);
        assert_eq!(overlap(Some("12h"), None), 21_600);
        assert_eq!(overlap(Some("30d"), Some("7d")), 7 * 86_400);
        assert_eq!(overlap(None, Some("0s")), 0, "at once");
        assert_eq!(
            overlap(None, Some("soon")),
            0,
            "what the schema refuses extends nothing"
        );
    }
}

//! Keys by number, the same in every process, and gates that know the first so many.

use std::sync::Arc;

use claviger::gate::freshness::{Freshness, Watched};
use claviger::gate::index::Writer;
use claviger::gate::metrics::Metrics;
use claviger::gate::report::{Subject, Uses};
use claviger::gate::route::Routes;
use claviger::gate::server::Counters;
use claviger::gate::shown::{ShownApiKey, ShownRole, ShownVersion, ShownVersionPhase};
use claviger::gate::{AccessLog, Desk, wall_clock};
use claviger::key::{Key, MintError, Prefix, RandomSource};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The protected API that all keys are for.
pub(crate) const AUDIENCE: &str = "invoices-api";
/// Keys of one namespace.
const IN_NAMESPACE: u64 = 100;
/// Keys from this number on are well-formed, and nobody has them.
const STRANGERS: u64 = 1 << 40;

/// What a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// A key that passes.
    Hit,
    /// A well-formed key that nobody has.
    Miss,
    /// A mistyped key.
    Malformed,
}

impl Case {
    pub(crate) const ALL: [Self; 3] = [Self::Hit, Self::Miss, Self::Malformed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Malformed => "malformed",
        }
    }
}

/// Numbers that look random and come again (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl RandomSource for Numbers {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), MintError> {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
        Ok(())
    }
}

/// The key with this number.
pub(crate) fn key(number: u64) -> Key {
    Key::mint(
        &Prefix::default(),
        &mut Numbers(number.wrapping_mul(0x2545_f491_4f6c_dd1d)),
    )
    .expect("no failure")
}

/// What requests of this case show to a gate that knows `keys` keys: one in no order after another, so that nothing but small
/// indexes stays in the processor's caches.
pub(crate) fn shown(case: Case, keys: u64, order: &mut Numbers) -> String {
    let number = order.next() % keys;
    match case {
        Case::Hit => key(number).expose().to_owned(),
        Case::Miss => key(STRANGERS + number).expose().to_owned(),
        Case::Malformed => {
            let mut text = key(number).expose().to_owned();
            let last = text.pop();
            text.push(if last == Some('0') { '1' } else { '0' });
            text
        }
    }
}

/// An ApiKey as a controller leaves it: one version, a role, ten ApiKeys to a profile that the index keeps once.
pub(crate) fn shown_apikey(number: u64, now: Timestamp) -> ShownApiKey {
    let key = key(number);
    let id = format!("{number:032x}");
    let namespace = format!("team-{}", number / IN_NAMESPACE);
    let mut shown = ShownApiKey::default();
    shown.metadata.name = format!("billing-export-{number}");
    shown.metadata.uid = format!("00000000-0000-4000-8000-{number:012x}");
    shown.metadata.creation_timestamp = Some(Time(now));
    shown.spec.audiences = vec![AUDIENCE.to_owned()];
    shown.spec.roles = vec!["invoices-viewer".to_owned()];
    shown.spec.permissions = vec!["invoices:export".to_owned()];
    shown.spec.metadata = [("tier".to_owned(), "gold".to_owned())].into();
    shown.status.organization = Some(format!("org-{}", number / IN_NAMESPACE % 10));
    shown.status.principal = Some(format!("{id}@{namespace}.claviger.local"));
    shown.status.key_id = Some(id);
    shown.status.expires_at = Some(Time(now + SignedDuration::from_hours(24 * 90)));
    // Used before, this very hour: a use is then noted with one comparison, as it is for all but one request of an hour.
    shown.status.last_used_at = Some(Time(now));
    shown.status.versions = vec![ShownVersion {
        version: 1,
        hash: key.hash().to_string(),
        phase: ShownVersionPhase::Current,
        retires_at: None,
    }];
    shown.metadata.namespace = namespace;
    shown
}

/// An index of the first `keys` keys.
pub(crate) fn writer(keys: u64) -> Writer {
    let now = Timestamp::now();
    let mut writer = Writer::default();
    let mut role = ShownRole::default();
    "invoices-viewer".clone_into(&mut role.metadata.name);
    "00000000-0000-4000-9000-000000000001".clone_into(&mut role.metadata.uid);
    role.spec.permissions = vec!["invoices:read".to_owned()];
    writer.apply_role(&role);
    for number in 0..keys {
        writer.apply(&shown_apikey(number, now));
    }
    writer.publish();
    writer
}

/// A gate as `claviger gate` makes it, with an index that no API server has shown.
pub(crate) fn desk(writer: &Writer) -> Arc<Desk> {
    let freshness = Freshness::new(true, None);
    freshness.listed(Watched::ApiKeys);
    freshness.listed(Watched::Roles);
    let uses = Arc::new(Uses::default());
    let metrics = Arc::new(Metrics::new(&Arc::new(Counters::default()), &uses));
    Arc::new(Desk {
        index: writer.published(),
        freshness: Arc::new(freshness),
        routes: Routes::new(false),
        metrics,
        clock: wall_clock,
        used: Box::new(move |holder, now| {
            let entry = holder.entry();
            uses.record(entry.noted(), now, || Subject {
                namespace: entry.profile().namespace().to_owned(),
                name: entry.name().to_owned(),
                uid: entry.uid().to_string(),
            });
        }),
        access_log: AccessLog::Off,
    })
}

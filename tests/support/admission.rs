//! The admission policies that the chart installs.

use super::cluster::Cluster;
use super::stage::manifest;
use super::wait;

impl Cluster {
    /// Waits until the API server enforces them: it takes up what is new about once a second.
    pub(crate) fn await_policies(&self) {
        wait::until("the admission policies are in force", || {
            let probe = manifest("probe", "{expiry: {at: 2001-01-01T00:00:00Z}}");
            let past = self.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &probe);
            let probe = manifest("probe", "{revoked: true}");
            let born = self.try_kubectl(&["create", "--dry-run=server", "-o", "yaml", "-f", "-"], &probe);
            let said = format!("{}{}", String::from_utf8_lossy(&past.stderr), String::from_utf8_lossy(&born.stdout));
            let all = ["which is past", "- claviger.dev/finalizer", "revokedBy: admin"].iter().all(|word| said.contains(word));
            if all { Ok(()) } else { Err(format!("{said}{}", String::from_utf8_lossy(&born.stderr))) }
        });
    }
}

//! After all stories: the text of every key is searched for in logs, events, metrics, and in everything that was ever stored in
//! etcd except its own Secret (incidents 34).

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::leaks;

stories![no_key_stands_anywhere_but_in_its_secret];

fn no_key_stands_anywhere_but_in_its_secret() {
    let clusters = Cluster::all_shared();
    let mut audit = leaks::Audit::default();
    for cluster in &clusters {
        let one = leaks::audit(cluster);
        audit = leaks::Audit {
            keys: audit.keys + one.keys,
            texts: audit.texts + one.texts,
            stored: audit.stored + one.stored,
        };
    }
    println!(
        "looked for {} keys in {} logs and metrics, and in {} stored values",
        audit.keys, audit.texts, audit.stored
    );
    let all_were_told = libtest_mimic::Arguments::from_args().filter.is_none();
    assert!(
        audit.stored > 0 || clusters.is_empty(),
        "there was somewhere to look"
    );
    assert!(
        audit.keys > 0 || !all_were_told,
        "there was something to look for"
    );
}

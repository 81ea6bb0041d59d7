//! After all stories: the text of every key is searched for in logs, events, metrics, and in everything that was ever stored in
//! etcd except its own Secret (incidents 34).

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::leaks;

stories![no_key_stands_anywhere_but_in_its_secret];

fn no_key_stands_anywhere_but_in_its_secret() {
    let Some(cluster) = Cluster::shared_if_started() else { return };
    let audit = leaks::audit(&cluster);
    println!("looked for {} keys in {} logs and metrics, and in {} stored values", audit.keys, audit.texts, audit.stored);
    let all_were_told = libtest_mimic::Arguments::from_args().filter.is_none();
    assert!(audit.stored > 0, "there was somewhere to look");
    assert!(audit.keys > 0 || !all_were_told, "there was something to look for");
}

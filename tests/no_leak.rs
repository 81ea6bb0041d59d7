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
    assert!(audit.keys > 0 && audit.stored > 0, "there was something to look for, and somewhere to look");
}

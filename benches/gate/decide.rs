//! The decision by itself, against SHA-256 of the same key and one look into a standard map: what anybody needs at least.

use std::collections::HashMap;
use std::hint::black_box;

use claviger::gate::permission::Expression;
use claviger::gate::{Ask, Code, Needs, Shown, decide};
use claviger::key::Hash;

use crate::cpu::SIZES;
use crate::keys::{AUDIENCE, Case, Numbers, key, shown};
use crate::serve::in_process;
use crate::setting;
use crate::stats::{ratios, spread};

/// Keys of a round: no key comes twice where there are more.
const AT_ONCE: usize = 20_000;

pub(crate) fn measure() {
    let rounds = setting("CLAVIGER_BENCH_ROUNDS", 9);
    println!(
        "\nthe decision in process: {rounds} rounds of {AT_ONCE} keys, in turn with SHA-256 and one look into a map\n"
    );
    println!(
        "| {:<9} | {:>9} | {:>9} | {:>12} | {:<21} |",
        "shows", "keys", "decide ns", "hash + map ns", "ratio"
    );
    println!(
        "|{}|",
        [11, 11, 11, 14, 23]
            .map(|width| "-".repeat(width))
            .join("|")
    );
    let permissions: Expression = "invoices:read".parse().expect("an expression");
    let needs = Needs {
        audience: Some(AUDIENCE),
        permissions: Some(&permissions),
        ..Needs::default()
    };
    let mut order = Numbers(2);
    for keys in SIZES {
        let desk = in_process(keys);
        let map: HashMap<Hash, u64> = (0..keys)
            .map(|number| (key(number).hash(), number))
            .collect();
        for case in Case::ALL {
            let expected = match case {
                Case::Hit => Code::Valid,
                Case::Miss => Code::NotFound,
                Case::Malformed => Code::Malformed,
            };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..=rounds {
                let texts: Vec<String> = (0..AT_ONCE)
                    .map(|_| shown(case, keys, &mut order))
                    .collect();
                let decisions = || {
                    per_key(&texts, |text| {
                        let ask = Ask {
                            shown: Shown::One(text),
                            needs,
                        };
                        let verdict = decide(&desk.index.load(), &ask, (desk.clock)());
                        assert_eq!(verdict.code, expected);
                    })
                };
                let lookups = || {
                    per_key(&texts, |text| {
                        black_box(map.get(&Hash::of(text)));
                    })
                };
                let (decision, lookup) = if round % 2 == 0 {
                    (decisions(), lookups())
                } else {
                    let lookup = lookups();
                    (decisions(), lookup)
                };
                if round > 0 {
                    ours.push(decision);
                    theirs.push(lookup);
                }
            }
            let median = |values: &[f64]| spread(values.iter().copied()).median;
            println!(
                "| {:<9} | {keys:>9} | {:>9.0} | {:>13.0} | {:<21} |",
                case.name(),
                median(&ours),
                median(&theirs),
                ratios(&ours, &theirs).text(2)
            );
        }
    }
}

/// Nanoseconds of processor time for each: what others do on the machine in the meantime does not count.
fn per_key(texts: &[String], mut what: impl FnMut(&[u8])) -> f64 {
    let begun = processor_time();
    for text in texts {
        what(black_box(text.as_bytes()));
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let count = texts.len() as f64;
    (processor_time() - begun) / count
}

/// Of this thread, in nanoseconds.
fn processor_time() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "a few minutes")]
    let nanoseconds = now.tv_sec as f64 * 1e9 + now.tv_nsec as f64;
    nanoseconds
}

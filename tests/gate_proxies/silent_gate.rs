//! One of two gates drops all packets, as when its node has gone: the other one answers for it.

use std::time::{Duration, Instant};

use super::relay::Relay;
use super::verdicts::AUDIENCE;
use crate::stories;
use crate::support::client::Question;
use crate::support::gate::Gate;
use crate::support::proxies::{Kind, Proxy};
use crate::support::stage::Stage;
use crate::support::wait;

stories![envoy_leaves_out_a_silent_gate];

/// So many requests in a row that pass show that Envoy has left it out.
const IN_A_ROW: usize = 300;

fn envoy_leaves_out_a_silent_gate() {
    let stage = Stage::new("silent-gate");
    let key = {
        let _operator = stage.operator().start_ready();
        stage.declare("k", &format!("{{audiences: [{AUDIENCE}]}}"));
        stage.wait_issued("k");
        stage.mounted("k")["api-key"].clone()
    };
    let gates = [Gate::start(&stage), Gate::start(&stage)];
    for kind in [Kind::EnvoyGrpc, Kind::EnvoyHttp] {
        let relays = [0, 1].map(|number: usize| Relay::to(gates[number].plain_address()));
        let addresses = [relays[0].address, relays[1].address];
        let proxy = Proxy::start_before(kind, &addresses);
        let ask = || proxy.ask(Question::get("/orders").bearer(&key)).status;
        wait::until("both gates are asked", || {
            let counts = [relays[0].connections(), relays[1].connections()];
            match (ask(), counts) {
                (200, [first, second]) if first > 0 && second > 0 => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        });
        relays[0].fall_silent();
        let (silent, mut asked, mut refused) = (Instant::now(), 0, 0);
        let (mut in_a_row, mut recovered) = (0, Duration::ZERO);
        while in_a_row < IN_A_ROW {
            assert!(
                silent.elapsed() < wait::LIMIT,
                "{refused} of {asked} are refused"
            );
            asked += 1;
            if ask() == 200 {
                in_a_row += 1;
            } else {
                (in_a_row, refused, recovered) = (0, refused + 1, silent.elapsed());
            }
        }
        println!(
            "{kind}: one of two gates is silent: {refused} of {asked} requests refused, the last \
             after {:.1} s",
            recovered.as_secs_f64()
        );
        assert_eq!(refused, 0, "{kind}: the other gate answers for it");
    }
}

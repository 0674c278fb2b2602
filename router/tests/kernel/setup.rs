//! Probing and setting up: what is missing is named, what is asked for is done, and
//! removing it leaves no trace.

use agentmon_router::kernel::probe::{Groups, probe};
use agentmon_router::kernel::{Check, setup};

use crate::lab::{Host, Lab};
use crate::traffic;

const GROUPS: Groups = Groups { firewall: 5, dns: 6 };
const OWN_RULES: &str = r#"
table inet home {
  chain forward {
    type filter hook forward priority 0; policy accept;
    tcp dport 25 drop
  }
}
"#;

fn on_router<R: Send + 'static>(lab: &Lab, work: impl FnOnce() -> R + Send + 'static) -> R {
    lab.on(Host::Router, work).join().expect("thread")
}

#[track_caller]
fn is(checks: &[Check], what: &str, ok: bool) {
    let check = checks.iter().find(|c| c.what == what).expect("looked at");
    assert_eq!(check.ok, ok, "{check}");
}

#[test]
fn an_untouched_kernel_is_probed_set_up_and_left_as_it_was() {
    let Some(lab) = Lab::new(&["nf_conntrack_acct=0", "nf_conntrack_events=2"]) else { return };
    lab.nft(OWN_RULES);
    let ruleset = || lab.exec(Host::Router, "nft list ruleset");
    let before = ruleset();

    let checks = on_router(&lab, || probe(GROUPS));
    for (what, ok) in [
        ("permission", true),
        ("connection tracking", true),
        ("tracking active", false),
        ("byte counts", false),
        ("flow events", false),
        ("firewall log", true),
    ] {
        is(&checks, what, ok);
    }
    assert_eq!(ruleset(), before, "probing changes nothing");

    let done = on_router(&lab, || {
        setup::install(GROUPS).expect("accepted");
        setup::install(GROUPS).expect("twice is fine");
        assert!(setup::is_installed().expect("nft runs"));
        setup::switches()
    });
    assert!(done.iter().all(|c| c.ok), "{done:?}");
    let checks = on_router(&lab, || probe(GROUPS));
    assert!(checks.iter().all(|c| c.ok), "{checks:?}");
    assert!(ruleset().starts_with(before.trim_end()), "the user's own rules stay");
    traffic::tcp_out(&lab, traffic::WAN[0], 8080, 100, 100);

    on_router(&lab, || {
        setup::remove().expect("removed");
        setup::remove().expect("twice is fine");
        assert!(!setup::is_installed().expect("nft runs"));
    });
    assert_eq!(ruleset(), before, "no trace");
}

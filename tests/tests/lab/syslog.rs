//! A resolver that can only send its log: dnsmasq writes to busybox's syslogd, which sends
//! datagrams to the router. The receiver freezes: the resolver does not mind, and what could
//! not be kept is told.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::wait::{eventually, want};
use agentmon_tests::lab::world::{LAN, RTR_LAN, World};
use agentmon_tests::lab::{dns, in_world, need, proc};
use rustix::process::Signal;

const SENDER: &str = "192.168.77.53";
const PORT: u16 = 5514;
/// More than the receiver's buffer holds.
const FLOOD: usize = 30_000;

fn start(world: &World) -> Chain {
    Chain::start_with(
        world,
        &format!(
            "collect.syslog.enabled = true\n\
             collect.syslog.udp = [\"{RTR_LAN}:{PORT}\"]\n\
             collect.syslog.allow = [\"{SENDER}/32\"]\n\
             collect.syslog.messages_per_second = 100000\n"
        ),
        "",
    )
}

/// Asks the sender's resolver, once: nobody waits for a name here.
fn ask(name: &str) -> Result<(), String> {
    dns::ask_from("lan", Some(LAN), SENDER, name, dns::A).map(drop)
}

/// `names` are told once each, of the client that asked, by syslog.
#[track_caller]
fn told(chain: &Chain, like: &str, names: u64) {
    let rows = format!("FROM dns WHERE name LIKE '{like}' AND client = '{LAN}'");
    chain.hub.reaches(30.0, &format!("SELECT count(*) {rows} AND source = 'syslog'"), names);
    assert_eq!(chain.hub.number(&format!("SELECT count(DISTINCT name) {rows}")), names);
}

#[test]
fn a_frozen_receiver_does_not_disturb_the_sender() {
    in_world(|world| {
        let tools = ["busybox", "logger"].into_iter().filter(|tool| need::find(tool).is_none());
        let missing: Vec<String> = tools.map(str::to_owned).collect();
        if !missing.is_empty() {
            return need::leave_out("LAB", "syslog", &missing);
        }
        let chain = start(world);
        let _resolver = dns::resolver_with_syslog(world, "sender", SENDER, (RTR_LAN, PORT));
        eventually(20.0, "the log arrives", || {
            ask("begin.example.com")?;
            let arrived = "SELECT count(*) FROM dns WHERE source = 'syslog'";
            want(chain.hub.number(arrived) > 0, || "nothing yet".to_owned())
        });
        for n in 0..20 {
            ask(&format!("before-{n}.example.com")).expect("the resolver answers");
        }
        told(&chain, "before-%", 20);

        chain.sensor.proc().signal(Signal::STOP);
        for n in 0..20 {
            ask(&format!("frozen-{n}.example.com")).expect("the resolver answers all the same");
        }
        flood(world);
        for n in 0..20 {
            ask(&format!("full-{n}.example.com")).expect("with a full receiver as well");
        }
        chain.sensor.proc().signal(Signal::CONT);

        // What came first was kept by the kernel, what came when it was full is told.
        told(&chain, "frozen-%", 20);
        let gaps = "SELECT count(*) FROM gaps WHERE collector = 'syslog' \
                    AND reason = 'udp-full' AND lost > 0";
        eventually(30.0, "the gap is told", || {
            want(chain.hub.number(gaps) > 0, || "no gap yet".to_owned())
        });
        for n in 0..20 {
            ask(&format!("after-{n}.example.com")).expect("the resolver answers");
        }
        told(&chain, "after-%", 20);
        let _dropped = chain.conserved();
    });
}

/// Another program of the same machine sends more than there is room for.
fn flood(world: &World) {
    let text = world.file("flood.txt");
    std::fs::write(&text, "something of another program\n".repeat(FLOOD)).expect("test folder");
    let (logger, port) = (need::find("logger").expect("looked for before"), PORT.to_string());
    let file = text.to_string_lossy().into_owned();
    let to = ["--udp", "--server", RTR_LAN, "--port", &port, "--tag", "noise", "--file", &file];
    let _nothing = proc::output("sender", &logger, &to);
}

//! The hub, or what stands before it, answers badly: nothing is lost, doubled, or asked for
//! without pause. Names of invariants as in `faults`.

use std::time::Duration;

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::dns::resolver_log;
use agentmon_tests::lab::front::{Asked, Front, Trouble};
use agentmon_tests::lab::in_world;
use agentmon_tests::lab::wait::{eventually, now, pause, want};
use agentmon_tests::lab::workload::{Surfer, write_log};
use agentmon_tests::lab::world::{World, say};
use rand::Rng as _;
use rand::seq::SliceRandom as _;

/// Everything, with the reverse proxy.
fn start(world: &World, settings: &str) -> (Chain, Front) {
    let chain = Chain::start_behind_front(world, settings);
    let front = chain.front.clone().expect("asked for");
    (chain, front)
}

/// Sets the trouble and waits until it has hit `count` requests; gives them.
fn suffer(front: &Front, trouble: Trouble, count: usize) -> Vec<Asked> {
    let before = front.asked().len();
    front.set(trouble);
    eventually(60.0, &format!("{trouble:?} hits {count} requests"), || {
        let new = front.asked().split_off(before);
        want(new.len() >= count, || format!("{}", new.len())).map(|()| new)
    })
}

/// Waits until a request is answered with 200 again.
fn heal(front: &Front) {
    let before = front.asked().len();
    front.set(Trouble::None);
    eventually(90.0, "a batch is taken", || {
        let new = front.asked().split_off(before);
        want(new.iter().any(|a| a.status == Some(200)), || format!("{new:?}"))
    });
}

#[test]
fn bad_answers_cost_nothing_but_time() {
    in_world(|world| {
        let (chain, front) = start(world, "");
        let surfer = Surfer::start("answers", 10);
        let mut rng = world.rng();
        let mut troubles = [
            Trouble::Refuse(500, ""),
            Trouble::Refuse(502, ""),
            Trouble::Refuse(429, ""),
            Trouble::RefuseStored(500),
            Trouble::RefuseStored(504),
            Trouble::CutBody(rng.random_range(0..200)),
            Trouble::CutAnswer(rng.random_range(1..20)),
            // Within the answer's body, whose length the head has told.
            Trouble::CutAnswer(130),
            Trouble::Slow(rng.random_range(100..2_000)),
        ];
        troubles.shuffle(&mut rng);
        for trouble in troubles {
            suffer(&front, trouble, 2);
            heal(&front);
        }
        let count = surfer.stop();
        chain.has_exactly_once("answers-", count, 60.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
        chain.is_alive("healed", 20.0);
        say(&format!("{count} names, {} requests", front.asked().len()));
    });
}

#[test]
fn a_hub_that_fails_is_asked_ever_more_rarely() {
    in_world(|world| {
        let (chain, front) = start(world, "");
        let surfer = Surfer::start("rarely", 10);
        let (begin, before) = (now(), front.asked().len());
        front.set(Trouble::Refuse(500, ""));
        pause(12_000);
        let (seconds, attempts) = (now().since(begin).as_secs(), front.asked().len() - before);
        // Waits are drawn from 0.2 s to 1, 2, 4, 8 ... s: 12 s see about six attempts. Without
        // growing waits there would be 20, without any wait thousands.
        assert!((2..=16).contains(&attempts), "{attempts} attempts in {seconds} s");
        heal(&front);

        // It says itself how long: seconds of the header, less the jitter of a tenth.
        // The first may have been on its way already.
        let mut asked = suffer(&front, Trouble::Refuse(429, "Retry-After: 3\r\n"), 4);
        asked.retain(|a| a.status == Some(429));
        assert!(asked.len() >= 3, "{asked:?}");
        for pair in asked.windows(2) {
            let waited = pair[1].at.since(pair[0].at);
            assert!(waited >= Duration::from_millis(2_700), "asked again after {waited:?}");
        }
        heal(&front);
        let count = surfer.stop();
        chain.has_exactly_once("rarely-", count, 60.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
        say(&format!("{attempts} attempts in {seconds} s"));
    });
}

#[test]
fn batches_shrink_to_what_is_taken() {
    in_world(|world| {
        const NAMES: u64 = 4_000;
        // A health report alone takes about 1.5 KB; 4,000 random names 60 KB.
        const MOST: usize = 6_000;
        let (chain, front) = start(world, "");
        front.set(Trouble::BodyMost(MOST));
        let before = front.asked().len();
        let mut rng = world.rng();
        for _ in 0..NAMES {
            write_log(&resolver_log(world), &format!("large-{:016x}", rng.random::<u64>()), 1);
        }
        chain.has_exactly_once("large-", NAMES, 60.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
        let asked = front.asked().split_off(before);
        let refused = asked.iter().filter(|a| a.status == Some(413)).count();
        let taken = asked.iter().filter(|a| a.status == Some(200)).count();
        say(&format!("{taken} batches taken, {refused} refused"));
        assert!(refused > 0, "the limit was never met");
        assert!(refused <= taken / 2 + 12, "{refused} of {} in vain", asked.len());
        assert!(asked.iter().all(|a| a.status != Some(200) || a.bytes <= MOST));
    });
}

#[test]
fn what_is_never_taken_is_dropped_one_by_one_and_counted() {
    in_world(|world| {
        let (chain, front) = start(world, "");
        let surfer = Surfer::start("never", 10);
        front.set(Trouble::BodyMost(0));
        let (begin, before) = (now(), front.asked().len());
        let refused = |chain: &Chain| -> Result<u64, String> {
            let status = chain.sensor.status()?;
            Ok(status["ring"]["dropped"]["refused"].as_u64().unwrap_or(0))
        };
        eventually(60.0, "three events are given up", || {
            let dropped = refused(&chain)?;
            want(dropped >= 3, || format!("{dropped}"))
        });
        let (seconds, attempts) = (now().since(begin).as_secs(), front.asked().len() - before);
        say(&format!("{attempts} attempts in {seconds} s"));
        heal(&front);
        let count = surfer.stop();
        // One refusal must not empty the ring: the pace is that of failures.
        let dropped = eventually(60.0, "C1: what is missing was counted", || {
            let dropped = chain.conserved();
            let like = "SELECT count(DISTINCT name) FROM dns WHERE name LIKE 'never-%'";
            let stored = chain.hub.number(like);
            want(stored + dropped >= count, || format!("{stored} + {dropped} of {count}"))?;
            Ok(dropped)
        });
        assert!((3..=10).contains(&dropped), "{dropped} given up within {seconds} s");
        assert_eq!(refused(&chain), Ok(dropped), "and for no other reason");
        chain.is_alive("healed", 20.0);
    });
}

#[test]
fn evicted_although_the_hub_had_it() {
    in_world(|world| {
        let (chain, front) = start(world, "ring.bytes_max = 2_097_152\n");
        // The hub stores a batch, its answer is lost, and it goes away; meanwhile the batch
        // is evicted.
        front.set(Trouble::RefuseStored(500));
        write_log(&resolver_log(world), "doubt", 500);
        chain.hub.reaches(20.0, "SELECT count(*) FROM dns WHERE name LIKE 'doubt-%'", 500);
        front.set(Trouble::Refuse(500, ""));
        write_log(&resolver_log(world), "push", 30_000);
        eventually(60.0, "the batch is evicted", || {
            let ring = &chain.sensor.status()?["ring"];
            want(ring["in_doubt"].as_u64() > Some(0), || ring.to_string())
        });
        heal(&front);
        chain.is_alive("healed", 40.0);
        // C1, exactly: what the hub has is what the router counts as acknowledged.
        let dropped = chain.conserved();
        say(&format!("{dropped} dropped"));
        assert!(dropped > 0, "nothing was evicted");
        let ring = chain.sensor.status().expect("the router answers")["ring"].clone();
        assert_eq!(ring["in_doubt"], 0, "{ring}");
        chain.has_exactly_once("doubt-", 500, 10.0);
    });
}

#[test]
fn a_hub_that_never_answers_is_noticed() {
    in_world(|world| {
        let (chain, front) = start(world, "");
        let surfer = Surfer::start("hang", 20);
        front.set(Trouble::Hang);
        // Longer than the router waits for an answer (30 s).
        eventually(60.0, "the router gives the request up", || {
            let status = chain.sensor.status()?;
            let connected = status["forward"]["connected"].as_bool();
            want(connected == Some(false), || status["forward"].to_string())
        });
        front.set(Trouble::None);
        chain.is_alive("answers", 30.0);
        let count = surfer.stop();
        chain.has_exactly_once("hang-", count, 30.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
    });
}

#[test]
fn a_cable_pulled_and_put_back() {
    in_world(|world| {
        let chain = Chain::start(world);
        let surfer = Surfer::start("cable", 20);
        pause(500);
        // Half open: neither side hears of it. The LAN's other ports work on (C8).
        world.hub_cable(false);
        pause(8_000);
        world.hub_cable(true);
        let count = surfer.stop();
        chain.has_exactly_once("cable-", count, 90.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
        chain.is_alive("plugged", 20.0);
    });
}

//! Where something is missing, the service runs and says what is off; flash stays dry.

use crate::root::{Said, run};

/// Starts the service as procd would and waits until it answers.
const DAEMON: &str = r#"
say_status() { /usr/sbin/agentmon-router status 2>&1; }
daemon() {
    init start > /tmp/init.log
    /usr/sbin/agentmon-router run --config /var/etc/agentmon/router.toml 2>> /tmp/log &
    pid=$!
    for i in $(seq 200); do say_status | grep -q '^collectors' && return; sleep 0.1; done
    echo "does not answer"; cat /tmp/log
}
until_says() { for i in $(seq 300); do say_status | grep -q "$1" && return; sleep 0.1; done; echo "never says $1:"; say_status; cat /tmp/log; }
# Only what the test is about.
quiet() {
    for name in conntrack firewall passive_dns leases neighbours; do
        uci_off "$name"
    done
    uci_set nft_table 0; uci_set log_rejects 0
}
uci_off() { sed -i "/^config collector '$1'/,/^config/s/option enabled '1'/option enabled '0'/" /etc/config/agentmon; }
uci_set() { sed -i "s/^\\(\toption $1\\) .*/\\1 '$2'/" /etc/config/agentmon; }
# A connection on loopback makes an event for conntrack.
uci_set loopback 1
uci_set dump_interval 1s
sysctl -qw net.netfilter.nf_conntrack_icmp_timeout=1
"#;

#[track_caller]
fn daemon(script: &str, settings: &[(&str, &str)]) -> Option<Said> {
    let said = run(&format!("{DAEMON}{script}"), settings)?;
    assert!(said.ok, "{}", said.text);
    said.lacks(&["does not answer", "never says", "panicked"]);
    Some(said)
}

#[test]
fn flash_is_never_written() {
    // Everything but /tmp is read-only for the program, as strict as it gets; and what the
    // init script did before is looked for by time.
    let script = "
        touch /tmp/before; sleep 0.02
        daemon
        busybox ping -c 3 -i 0.2 127.0.0.1 > /dev/null
        until_says 'ring  *[1-9][0-9]* waiting'
        kill -HUP $pid; sleep 1
        init reload > /dev/null
        kill $pid; wait $pid
        init stop > /dev/null
        echo == written
        find /mnt/flash -newer /tmp/before -type f
        echo == end
        echo == log
        cat /tmp/log
    ";
    let Some(said) = daemon(script, &[]) else { return };
    assert_eq!(said.part("written").text.trim(), "", "{}", said.text);
    said.part("log").has(&["stopping"]);
}

#[test]
fn it_runs_with_everything_but_tmp_read_only() {
    let script = "
        mount -o remount,ro /
        daemon
        touch /etc/x 2>/dev/null && echo writable
        busybox ping -c 3 -i 0.2 127.0.0.1 > /dev/null
        until_says 'ring  *[1-9][0-9]* waiting'
        echo == status
        say_status
        cat /tmp/log
    ";
    let Some(said) = daemon(script, &[]) else { return };
    said.lacks(&["writable"]);
    said.part("status").has(&["conntrack", "neighbours"]).lacks(&["ERROR"]);
}

#[test]
fn a_snapshot_on_read_only_flash_is_off_and_says_so() {
    let script = "
        quiet
        uci_set snapshot_interval 60
        init start > /dev/null
        sed -i 's/snapshot_seconds = 60/snapshot_seconds = 1/; /collect.replay/,/pace/s/enabled = false/enabled = true/; /collect.replay/,/pace/s,path = \"\",path = \"/tmp/events\",' /var/etc/agentmon/router.toml
        echo '{\"time_ns\":1795000000000000000,\"kind\":\"gap\",\"collector\":\"c\",\"from\":1795000000000000000,\"reason\":\"r\"}' > /tmp/events
        mount --bind /etc/agentmon /etc/agentmon; mount -o remount,bind,ro /etc/agentmon
        /usr/sbin/agentmon-router run --config /var/etc/agentmon/router.toml 2>> /tmp/log &
        until_says 'snapshot .*off: '
        echo == status
        say_status
        umount /etc/agentmon
        until_says 'snapshot .*: ok; 1 events'
        ls /etc/agentmon
    ";
    let Some(said) = daemon(script, &[]) else { return };
    said.part("status").has(&[
        "ring.snapshot",
        "Read-only file system",
        "1 waiting",
        "ring.snapshot",
    ]);
}

#[test]
fn full_memory_costs_events_which_are_counted_and_not_the_service() {
    let script = "
        init start > /dev/null
        dd if=/dev/zero of=/tmp/filler bs=4k 2>/dev/null
        /usr/sbin/agentmon-router run --config /var/etc/agentmon/router.toml 2> /dev/shm/agentmon-log &
        pid=$!
        until_says 'LACK  *ring: off.*no space left'
        echo == full
        say_status
        kill -0 $pid && echo runs
        rm /tmp/filler
        busybox ping -c 3 -i 0.2 127.0.0.1 > /dev/null
        until_says 'ring  *[1-9][0-9]* waiting'
        echo == room
        say_status
        rm -f /dev/shm/agentmon-log
    ";
    let Some(said) = daemon(script, &[("TMP_SIZE", "2m")]) else { return };
    said.part("full").has(&["runs", "collectors"]);
    said.part("room").lacks(&["LACK        ring"]);
}

#[test]
fn a_ring_that_is_another_programs_is_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("other.db");
    let other = rusqlite::Connection::open(&path).expect("created");
    other.execute_batch("CREATE TABLE precious(x)").expect("made");
    drop(other);
    let database = std::fs::read(&path).expect("there");
    let hex: String = database.iter().map(|b| format!("{b:02x}")).collect();
    let script = "
        init start > /dev/null
        echo \"$DATABASE\" | xxd -r -p > /tmp/agentmon/ring.db
        cp /tmp/agentmon/ring.db /tmp/other.db
        daemon
        until_says 'LACK  *ring: off.*is a database of another program'
        busybox ping -c 3 -i 0.2 127.0.0.1 > /dev/null
        until_says 'pipeline.events'
        echo == status
        say_status
        cmp /tmp/agentmon/ring.db /tmp/other.db && echo untouched
    ";
    let script = script.replace("xxd", "busybox xxd");
    let Some(said) = daemon(&script, &[("DATABASE", &hex)]) else { return };
    said.part("status").has(&["choose another ring.path", "collectors", "untouched"]);
}

#[test]
fn lists_on_a_disk_that_is_not_there_are_off_and_the_others_work() {
    let script = "
        quiet
        printf \"config list 'usb'\\n\\toption path '/mnt/usb/list.txt'\\nconfig list 'own'\\n\\tlist domain 'bad.example'\\n\" >> /etc/config/agentmon
        daemon
        echo == status
        say_status
        echo == score
        /usr/sbin/agentmon-router check --uci /etc/config/agentmon | head -3
        mkdir -p /mnt/usb; echo worse.example > /mnt/usb/list.txt
        kill -HUP $pid
        for i in $(seq 100); do say_status | grep -q 'block list' || break; sleep 0.1; done
        echo == healed
        say_status
    ";
    let Some(said) = daemon(script, &[]) else { return };
    said.part("status").has(&["LACK        block list: off: ", "/mnt/usb/list.txt"]);
    said.part("score").has(&["list `usb`: /mnt/usb/list.txt"]);
    said.part("healed").has(&["collectors"]).lacks(&["block list"]);
}

#[test]
fn what_the_script_could_not_set_up_is_on_the_status_page() {
    let script = "
        mv /usr/sbin/nft /usr/sbin/nft.gone
        daemon
        echo == status
        say_status
    ";
    let Some(said) = daemon(script, &[]) else { return };
    said.part("status").has(&[
        "LACK        rules for DNS copies: off: ",
        "LACK        rule for copies of rejects: off: ",
    ]);
}

#[test]
fn without_the_right_to_look_each_collector_says_so() {
    // As on a kernel without the modules, no netlink question is answered.
    let script = "
        init start > /dev/null
        chmod 755 /tmp/agentmon /var/run/agentmon; chown -R 65534 /tmp/agentmon /var/run/agentmon
        setpriv --reuid 65534 --clear-groups --inh-caps=-all --bounding-set=-all /usr/sbin/agentmon-router run --config /var/etc/agentmon/router.toml 2>> /tmp/log &
        pid=$!
        until_says 'conntrack .*next attempt'
        until_says 'passive-dns .*next attempt'
        echo == status
        say_status
        sleep 2
        kill -0 $pid && echo still runs
    ";
    let Some(said) = daemon(script, &[]) else { return };
    said.part("status").has(&["leases", "still runs"]);
}

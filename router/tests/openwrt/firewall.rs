//! The rules beside fw4: they come back after its reload, and can never take it down.

use crate::root::{Said, run};

/// As much of fw4 as matters here: its table with the chain of rejects, and the drop-ins.
const FW4: &str = r#"
fw4_load() {
    {
        echo 'table inet fw4'
        echo 'flush table inet fw4'
        echo 'table inet fw4 {'
        echo ' chain forward { type filter hook forward priority filter; policy drop; jump handle_reject; }'
        echo ' chain handle_reject {'
        echo '  meta l4proto tcp reject with tcp reset'
        echo '  reject'
        echo ' }'
        echo '}'
        for file in /usr/share/nftables.d/ruleset-post/*.nft; do echo "include \"$file\""; done
    } | sed 's/;\( *\)}/\n}/; s/; jump/\n jump/' | nft -f -
    echo "fw4 load: $?"
}
fw4_flush() { nft flush ruleset; }
count() { echo "copies $(nft list ruleset | grep -c 'comment "agentmon"'), table $(nft list tables | grep -c 'inet agentmon$'), fw4 $(nft list tables | grep -c 'inet fw4')"; }
"#;

#[track_caller]
fn fw4(script: &str) -> Option<Said> {
    let said = run(&format!("{FW4}{script}"), &[])?;
    assert!(said.ok, "{}", said.text);
    Some(said)
}

#[test]
fn rules_come_back_with_the_firewall_and_are_there_once() {
    let script = "
        fw4_load; count
        echo == start
        init start > /dev/null; count
        init restart > /dev/null; count
        echo == reload
        echo 'no rule at all' > /var/etc/agentmon/nft.d/other.nft
        fw4_load; fw4_load; count
        rm /var/etc/agentmon/nft.d/other.nft
        echo == restart
        fw4_flush; count
        fw4_load; count
        echo == chain
        nft list chain inet fw4 handle_reject
        echo == off
        sed -i \"s/log_rejects '1'/log_rejects '0'/; s/nft_table '1'/nft_table '0'/\" /etc/config/agentmon
        init reload; count
        fw4_load; count
        ls /var/etc/agentmon/nft.d
        echo == again
        sed -i \"s/log_rejects '0'/log_rejects '1'/\" /etc/config/agentmon
        init reload > /dev/null; count
        init stop; count
        fw4_load; count
    ";
    let Some(said) = fw4(script) else { return };
    said.has(&["fw4 load: 0\ncopies 0, table 0, fw4 1\n"]).lacks(&["fw4 load: 1"]);
    said.part("start").has(&["copies 1, table 1, fw4 1\ncopies 1, table 1, fw4 1"]);
    said.part("reload").has(&["fw4 load: 0\nfw4 load: 0\ncopies 1, table 1, fw4 1"]);
    said.part("restart").has(&["copies 0, table 0, fw4 0\nfw4 load: 0\ncopies 1, table 1, fw4 1"]);
    said.part("chain")
        .has(&["limit rate 100/second burst 100 packets log prefix \"agentmon-reject \" group 5"]);
    said.part("off").has(&["copies 0, table 0, fw4 1\nfw4 load: 0\ncopies 0, table 0, fw4 1"]);
    said.part("again").has(&[
        "copies 1, table 0, fw4 1\n",
        "copies 0, table 0, fw4 1\nfw4 load: 0\ncopies 0, table 0",
    ]);
}

#[test]
fn a_rule_the_kernel_does_not_take_is_left_out_and_told() {
    // An nft that knows no `log group` as on a router without kmod-nfnetlink-log: it looks at
    // what it is given, and hands the rest to the real one.
    let script = r#"
        mv /usr/sbin/nft /usr/sbin/nft.real
        cat > /usr/sbin/nft <<'N'
#!/bin/sh
eval last=\${$#}
if [ "$last" = - ]; then cat > /tmp/nft-input; else cp "$last" /tmp/nft-input 2>/dev/null || : > /tmp/nft-input; fi
if grep -q "$(cat /tmp/bad-word 2>/dev/null || echo nothing)" /tmp/nft-input; then
    echo "Error: Could not process rule: No such file or directory" >&2; exit 1
fi
if [ "$last" = - ]; then exec /usr/sbin/nft.real "$@" < /tmp/nft-input; fi
exec /usr/sbin/nft.real "$@"
N
        chmod 755 /usr/sbin/nft
        fw4_load
        echo == one
        echo agentmon-dns > /tmp/bad-word
        init start
        count
        echo > /tmp/bad-word; echo nothing > /tmp/bad-word
        fw4_load; count
        echo == both
        echo 'log prefix' > /tmp/bad-word
        init reload
        cat /var/run/agentmon/setup.json
        echo nothing > /tmp/bad-word
        count; fw4_load; count; ls -A /var/etc/agentmon/nft.d
        true
    "#;
    let Some(said) = fw4(script) else { return };
    let one = said.part("one");
    one.has(&[
        "log: rules for DNS copies: left out: nft -c -f -: Error: Could not process rule",
        "procd_open_instance",
    ]);
    one.has(&["copies 1, table 0, fw4 1\nfw4 load: 0\ncopies 1, table 0, fw4 1"]);
    let both = said.part("both");
    both.has(&["rule for copies of rejects: left out", "kmod-nfnetlink-log", "\"ok\":false"]);
    both.has(&["copies 0, table 0, fw4 1\nfw4 load: 0\ncopies 0, table 0, fw4 1"]);
}

#[test]
fn without_fw4_or_nft_the_service_starts_and_says_so() {
    let script = "
        echo == nofw4
        init start
        count
        echo == nonft
        mv /usr/sbin/nft /usr/sbin/nft.gone
        init restart
        cat /var/run/agentmon/setup.json
    ";
    let Some(said) = fw4(script) else { return };
    let without = said.part("nofw4");
    without.has(&["rule for copies of rejects: off: OpenWrt's firewall (fw4) is not running here"]);
    without.has(&["procd_open_instance", "copies 0, table 1, fw4 0"]);
    let iptables = said.part("nonft");
    iptables.has(&["rules for DNS copies: off: ", "nft does not start", "procd_open_instance"]);
}

#[test]
fn a_full_memory_disk_leaves_no_half_file() {
    let script = "
        fw4_load
        init start > /dev/null
        dd if=/dev/zero of=/tmp/filler bs=4k 2>/dev/null
        sed -i \"s/log_rejects_rate '100'/log_rejects_rate '7'/; s/log_level 'info'/log_level 'warn'/\" /etc/config/agentmon
        echo == reload
        init reload
        echo == files
        ls -A /var/etc/agentmon /var/etc/agentmon/nft.d
        fw4_load; count
        echo == room
        rm /tmp/filler
        init reload
        fw4_load; count
        nft list chain inet fw4 handle_reject
    ";
    let Some(said) = run(&format!("{FW4}{script}"), &[("TMP_SIZE", "4m")]) else { return };
    said.part("reload").has(&["No space left", "is not in force"]).lacks(&["service set"]);
    said.part("files").has(&[
        "router.toml",
        "agentmon.nft",
        "fw4 load: 0\ncopies 1, table 1, fw4 1",
    ]);
    said.part("files").lacks(&[".new"]);
    said.part("room").has(&[
        "procd_send_signal",
        "fw4 load: 0\ncopies 1, table 1, fw4 1",
        "rate 7/second",
    ]);
}

#[test]
fn an_interface_that_comes_up_brings_lost_rules_back() {
    let script = "
        hotplug() { ACTION=$1 INTERFACE=$2 sh -c '. /etc/hotplug.d/iface/30-agentmon'; }
        # OpenWrt runs the script by its first line, which names rc.common.
        mv /etc/init.d/agentmon /etc/init.d/agentmon.real
        printf '#!/bin/sh\\nexec busybox ash /etc/rc.common /etc/init.d/agentmon.real \"$@\"\\n' > /etc/init.d/agentmon
        chmod 755 /etc/init.d/agentmon
        fw4_load; /etc/init.d/agentmon start > /dev/null
        nft delete table inet agentmon; count
        echo == not-enabled
        hotplug ifup wan; count
        /etc/init.d/agentmon enable; touch /tmp/stub-running
        echo == others
        hotplug ifdown wan; hotplug ifup loopback; count
        echo == up
        hotplug ifup wan; count
        hotplug ifup wan; count
    ";
    let Some(said) = fw4(script) else { return };
    said.part("not-enabled").has(&["copies 1, table 0"]);
    said.part("others").has(&["copies 1, table 0"]);
    said.part("up").has(&["copies 1, table 1, fw4 1\ncopies 1, table 1, fw4 1"]);
}

/// The real thing that once took a firewall down: `queue` where the kernel has none. Then
/// iptables hands packets over, and where that is missing too, nothing is held and all said.
#[test]
fn holding_packets_never_costs_the_firewall() {
    let script = "
        held() { echo held $(nft list ruleset | grep -cE 'queue (num|flags)'); }
        fw4_load
        sed -i \"s/enforce '0'/enforce '1'/\" /etc/config/agentmon
        echo == start
        init start; cat /var/run/agentmon/setup.json
        echo == rules
        held; fw4_load; count; held
        fw4_flush; fw4_load; count
        echo == gone
        init stop > /dev/null
        held; nft list ruleset | grep -i agentmon_hold; ls /var/etc/agentmon
        fw4_load; count
        echo == none
        mkdir /tmp/away; mv /usr/sbin/*tables* /tmp/away/
        init start; cat /var/run/agentmon/setup.json
        held; fw4_load; count
    ";
    let Some(said) = fw4(script) else { return };
    let told = said.part("start");
    told.has(&["procd_open_instance", "rules that hold packets", "in force"]);
    told.lacks(&["left out"]);
    let rules = said.part("rules");
    // Each of the service's own tables comes back with the firewall.
    rules
        .has(&["fw4 load: 0\ncopies 1, table 1, fw4 1\n", "fw4 load: 0\ncopies 1, table 1, fw4 1"]);
    rules.lacks(&["held 0"]);
    said.part("gone").has(&["held 0", "fw4 load: 0\ncopies 0, table 0, fw4 1"]);
    said.part("gone").lacks(&["agentmon_hold", "AGENTMON_HOLD"]);
    let none = said.part("none");
    none.has(&["procd_open_instance", "fw4 load: 0\ncopies 1, table 1, fw4 1"]);
    if none.text.contains("held 0") {
        none.has(&["rules that hold packets: left out: nft -c", "kmod-nft-queue"]);
    }
}

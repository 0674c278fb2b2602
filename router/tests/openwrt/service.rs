//! The init script: what it tells procd, with and without ujail, and what it refuses.

use agentmon_router::join::Join;

use crate::root::{Said, run};

const USER: &str =
    "echo 'agentmon:x:5731:5731:agentmon:/var/run/agentmon:/bin/false' >> /etc/passwd\n";
const UJAIL: &str = "printf '#!/bin/sh\\n' > /sbin/ujail; chmod 755 /sbin/ujail\n";

#[track_caller]
fn service(script: &str) -> Option<Said> {
    let said = run(script, &[])?;
    assert!(said.ok, "{}", said.text);
    Some(said)
}

#[test]
fn without_a_jail_it_runs_as_root() {
    let Some(said) = service(
        "init start\necho == files\nls -ld /tmp/agentmon /var/run/agentmon\nls -R /etc/agentmon\n",
    ) else {
        return;
    };
    said.has(&[
        "service set\n",
        "procd_open_instance agentmon\n",
        "procd_set_param command /usr/sbin/agentmon-router run --config /var/etc/agentmon/router.toml\n",
        "procd_set_param respawn 3600 5 0\n",
        "procd_set_param file /usr/sbin/agentmon-router\n",
        "procd_set_param no_new_privs 1\n",
        "procd_set_param stdout 1\nprocd_set_param stderr 1\n",
        "procd_set_param env AGENTMON_START=",
        "procd_close_instance \n",
        "procd_add_reload_trigger agentmon\n",
        "procd_add_reload_interface_trigger lan\n",
    ]);
    said.lacks(&["procd_add_jail", "param user", "param capabilities", "log: /etc/config"]);
    said.part("files").has(&["drwxr-x--- ", "README"]).lacks(&["identity", "ring"]);
}

#[test]
fn with_ujail_it_runs_as_its_own_user() {
    let script = format!(
        "{USER}{UJAIL}init start\necho == files\nls -ldn /tmp/agentmon /var/run/agentmon /var/etc/agentmon\n"
    );
    let Some(said) = service(&script) else { return };
    said.has(&[
        "procd_add_jail agentmon ubus log procfs\n",
        "procd_add_jail_mount /tmp\n",
        "procd_add_jail_mount_rw /tmp/agentmon\n",
        "procd_add_jail_mount_rw /var/run/agentmon\n",
        "procd_add_jail_mount /var/etc/agentmon\n",
        "procd_add_jail_mount /etc/agentmon\n",
        "procd_set_param user agentmon\n",
        "procd_set_param capabilities /etc/capabilities/agentmon.json\n",
    ]);
    let files = said.part("files");
    assert_eq!(
        files.text.matches(" 5731 5731 ").count(),
        2,
        "two folders, user and group: {}",
        files.text
    );
    // ujail without the package's user, or the other way around, or unwanted, is no jail.
    let unwanted = format!("{USER}{UJAIL}touch /etc/agentmon/no-jail\n");
    for half in [USER, UJAIL, &unwanted] {
        let Some(said) = service(&format!("{half}init start\n")) else { return };
        said.has(&["procd_open_instance"]).lacks(&["procd_add_jail", "param user"]);
    }
}

/// `ssh` is a program of its own, with libraries: the jail shows it where it is used.
#[test]
fn ssh_is_in_the_jail_where_a_pihole_is_read_by_it() {
    let script = format!(
        "{USER}{UJAIL}mkdir -p /usr/libexec; cp /bin/true /usr/libexec/ssh-openssh\n\
         rm -f /usr/bin/ssh; ln -s /usr/libexec/ssh-openssh /usr/bin/ssh\n\
         init start\necho == on\n\
         printf \"config collector 'pihole_ssh'\\n\\toption enabled 1\\n\" > /etc/config/agentmon\n\
         init restart\n"
    );
    let Some(said) = service(&script) else { return };
    let mounts = [
        "procd_add_jail_mount /usr/bin/ssh\n",
        "procd_add_jail_mount /usr/libexec/ssh-openssh\n",
        "procd_add_jail_mount /etc/passwd\n",
    ];
    said.part("on").has(&mounts);
    let before = said.text.split("== on").next().unwrap_or_default();
    assert!(mounts.iter().all(|mount| !before.contains(mount)), "{before}");
}

/// The right to send whole packets is only for who answers in a resolver's place.
#[test]
fn a_dry_run_may_do_no_more_than_watch() {
    let script = format!(
        "{USER}{UJAIL}sed -i \"s/enforce '0'/enforce '1'/\" /etc/config/agentmon\ninit start\n\
         echo == real\nsed -i \"s/enforce_dry_run '1'/enforce_dry_run '0'/\" /etc/config/agentmon\n\
         init restart\n"
    );
    let Some(said) = service(&script) else { return };
    let line = "procd_set_param capabilities /etc/capabilities/agentmon-enforce.json\n";
    said.has(&["procd_set_param capabilities /etc/capabilities/agentmon.json\n"]);
    assert_eq!(said.text.matches(line).count(), 1, "{}", said.text);
    said.part("real").has(&[line]);
}

#[test]
fn settings_with_mistakes_are_refused_in_their_own_words() {
    let script = "
        printf \"config collector 'conntrack'\\n\\toption dump_interval '5x'\\n\" > /etc/config/agentmon
        init start
        echo == check
        init check
        echo == files
        ls /var/etc/agentmon
        true
    ";
    let Some(said) = service(script) else { return };
    let told = "/etc/config/agentmon:2: agentmon.conntrack.dump_interval: '5x' is not a duration; use e.g. 15s";
    said.has(&[&format!("log: {told}\n"), "log: not started: mend /etc/config/agentmon"]);
    said.lacks(&["procd_open_instance"]);
    // Mending it and committing starts it: the trigger is there all the same.
    said.has(&["procd_add_reload_trigger agentmon"]);
    said.part("check").has(&[told]);
    said.part("files").has(&["No such file"]);
}

#[test]
fn what_runs_goes_on_when_the_new_settings_are_wrong() {
    let script = "
        init start > /dev/null
        cp /var/etc/agentmon/router.toml /tmp/before
        echo \"config colector 'x'\" >> /etc/config/agentmon
        echo == reload
        init reload
        echo == after
        cmp /tmp/before /var/etc/agentmon/router.toml && echo the same
        echo == restart
        init restart
    ";
    let Some(said) = service(script) else { return };
    // procd is not spoken to: it would end what runs.
    said.part("reload")
        .has(&["no section type `colector`; did you mean `collector`?", "is not in force"]);
    said.part("reload").lacks(&["service set", "procd_send_signal"]);
    said.part("after").has(&["the same"]);
    said.part("restart").has(&["going on with the settings of before", "procd_open_instance"]);
}

#[test]
fn a_change_is_signalled_or_needs_a_new_start() {
    let script = "
        init start | grep AGENTMON_START > /tmp/first
        echo == same
        init reload
        echo == level
        sed -i \"s/log_level 'info'/log_level 'debug'/\" /etc/config/agentmon
        init reload
        echo == moved
        sed -i \"s,/tmp/agentmon/ring.db,/tmp/agentmon/other.db,\" /etc/config/agentmon
        init reload
        echo == first
        cat /tmp/first
    ";
    let Some(said) = service(script) else { return };
    let key = |part: &str| {
        let text = said.part(part).text;
        text.lines().find_map(|l| l.split_once("AGENTMON_START=")).map(|(_, key)| key.to_owned())
    };
    said.part("same").has(&["service set"]).lacks(&["procd_send_signal"]);
    said.part("level").has(&["procd_send_signal agentmon * HUP"]);
    assert_eq!(key("same"), key("first"));
    assert_eq!(key("level"), key("first"), "taken over while running");
    assert_ne!(key("moved"), key("first"), "procd starts it anew");
    assert!(key("first").is_some_and(|key| key.len() == 16));
}

#[test]
fn switched_off_nothing_runs_and_no_rule_stays() {
    let script = "
        init start > /dev/null
        sed -i \"0,/option enabled '1'/s//option enabled '0'/\" /etc/config/agentmon
        echo == off
        init reload
        echo == rules
        nft list ruleset
        ls /var/etc/agentmon/nft.d
        true
    ";
    let Some(said) = service(script) else { return };
    said.part("off").has(&["service set", "switched off"]).lacks(&["procd_open_instance"]);
    said.part("rules").has(&["No such file"]).lacks(&["agentmon {"]);
}

#[test]
fn the_package_comes_and_goes_without_a_trace() {
    let script = "
        # The package manager's part: user, files, scripts.
list() { find /etc /lib /usr/lib/agentmon* /usr/sbin /usr/share/acl.d /usr/share/nftables.d /usr/share/rpcd /www /srv 2>/dev/null | sort; find /tmp | grep -v -e /tmp/script -e /tmp/pkg -e stub | sort; cat /etc/passwd /etc/group; nft list ruleset; }
        list > /tmp/pkg-before
        cp -R /tmp/pkg/. /
        echo 'agentmon:x:5731:5731:agentmon:/var/run/agentmon:/bin/false' >> /etc/passwd
        echo 'agentmon:x:5731:' >> /etc/group
        sh /tmp/scripts/postinst
        init enable
        init start
        /usr/sbin/agentmon-router run --config /var/etc/agentmon/router.toml 2>/tmp/pkg-log &
        pid=$!
        for i in $(seq 100); do [ -S /var/run/agentmon/status.sock ] && break; sleep 0.1; done
        echo == there
        nft list tables
        ls /etc/rc.d /tmp/agentmon /var/run/agentmon /var/etc/agentmon
        kill -9 $pid
        printf '#!/bin/sh\\nexec /usr/bin/busybox ash /etc/rc.common /etc/init.d/agentmon.real \"$@\"\\n' > /tmp/pkg-init
        mv /etc/init.d/agentmon /etc/init.d/agentmon.real; cp /tmp/pkg-init /etc/init.d/agentmon; chmod 755 /etc/init.d/agentmon
        echo == upgrade
        PKG_UPGRADE=1 sh /tmp/scripts/prerm; PKG_UPGRADE=1 sh /tmp/scripts/postrm
        sh /tmp/scripts/postrm upgrade
        ls /etc/config/agentmon /etc/rc.d/S95agentmon
        echo == removal
        sh /tmp/scripts/prerm
        (cd /tmp/pkg && find . -type f) | while read -r file; do rm -f \"/$file\"; done
        rm -f /etc/init.d/agentmon.real
        sh /tmp/scripts/postrm
        list > /tmp/pkg-after
        echo == rest
        diff /tmp/pkg-before /tmp/pkg-after | grep '^[<>]'
        cat /tmp/pkg-log
        true
    ";
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../openwrt-feed/agentmon/files");
    // The program itself is mounted, hence there before and after.
    let script = format!(
        "{}\n{script}",
        "mkdir -p /tmp/pkg; cp -R /tmp/files/. /tmp/pkg/; rm -rf /tmp/files"
    );
    let _ = package;
    let Some(said) = run(&script, &[("NO_PACKAGE", "1")]) else { return };
    said.part("there").has(&[
        "table inet agentmon",
        "S95agentmon",
        "K10agentmon",
        "ring.db",
        "status.sock",
        "router.toml",
    ]);
    said.part("upgrade").has(&["/etc/config/agentmon", "/etc/rc.d/S95agentmon"]);
    let rest = said.part("rest").text;
    let left: Vec<&str> = rest.lines().filter(|l| l.starts_with(['<', '>'])).collect();
    // Folders that others share are OpenWrt's own.
    let shared = [
        "/etc/hotplug.d",
        "/etc/hotplug.d/iface",
        "/etc/capabilities",
        "/etc/uci-defaults",
        "/usr/share/acl.d",
        "/usr/share/nftables.d/ruleset-post",
    ];
    let left: Vec<_> =
        left.iter().filter(|l| !shared.iter().any(|s| l.ends_with(&format!(" {s}")))).collect();
    assert!(left.is_empty(), "{left:#?}\n{}", said.text);
}

#[test]
fn joining_by_hand_works_unless_the_settings_name_a_hub() {
    // A line made by the hub's own code, so that it is a good one.
    let ca = rcgen::generate_simple_self_signed(["hub.example".to_owned()]).expect("made");
    let (url, name) = ("https://192.0.2.10:8743", "attic");
    let join = Join::new(url.into(), name.into(), "t0k3n".into(), ca.cert.pem());
    let script = format!(
        "{USER}
        init start > /dev/null
        echo == hand
        echo \"$LINE\" | /usr/sbin/agentmon-router join --offline
        ls -ln /etc/agentmon/identity.json
        echo == settings
        printf \"config hub 'hub'\\n\\toption join '$LINE'\\n\" >> /etc/config/agentmon
        init reload | grep -v procd
        ls -l /var/run/agentmon/identity.json
        echo \"$LINE\" | /usr/sbin/agentmon-router join --offline
        true
        "
    );
    let Some(said) = run(&script, &[("LINE", &join.encode())]) else { return };
    said.part("hand").has(&["-rw------- 1 5731 5731"]);
    said.part("settings").has(&["/var/run/agentmon/identity.json"]);
    said.has(&[
        "joined; kept in /etc/agentmon/identity.json",
        "the hub stands in /etc/config/agentmon",
    ]);
}

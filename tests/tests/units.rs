//! The systemd units in `config/`, as `systemd-analyze` (package systemd; no running systemd
//! is needed) reads them: every setting is known, and the sandbox stays as tight as it is.
//! Where the tool is missing the tests are left out loudly, as the lab's are.

use std::path::Path;
use std::process::{Command, Output};

use agentmon_tests::lab::need;

/// Unit, and the most it may be exposed, in tenths (0: sealed, 100: open). Measured with
/// systemd 252: 1.2, 2.8 and 1.3. The router needs netlink, foreign logs and the kernel's
/// switches for accounting.
const UNITS: [(&str, &str); 4] = [
    ("agentmon-hub.service", "13"),
    ("agentmon-router.service", "29"),
    ("agentmon-collect.service", "14"),
    ("agentmon-host.service", "36"),
];
/// Starts the unit of the same name.
const TIMER: &str = "agentmon-collect.timer";

fn analyze(args: &[&str]) -> Option<Output> {
    let Some(tool) = need::find("systemd-analyze") else {
        need::leave_out("UNIT", "units", &["systemd-analyze (apt-get install systemd)".to_owned()]);
        return None;
    };
    // Colours and pagers are for people.
    let mut command = Command::new(tool);
    command.args(args).envs([("SYSTEMD_COLORS", "0"), ("SYSTEMD_PAGER", "")]);
    Some(command.output().expect("systemd-analyze runs"))
}

/// The unit's text with a program that exists in place of its own.
fn installed(unit: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(unit);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let program = |line: &str| {
        let Some((before, rest)) = line.split_once("=/usr/local/bin/") else {
            return line.to_owned();
        };
        format!("{before}=/bin/true {}", rest.split_once(' ').map_or("", |(_, args)| args))
    };
    text.lines().map(program).collect::<Vec<_>>().join("\n") + "\n"
}

/// What `systemd-analyze verify` has to say about this text; nothing is good.
fn complaints(unit: &str, text: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(unit);
    std::fs::write(&file, text).expect("written");
    let out = analyze(&["verify", "--man=no", &file.to_string_lossy()])?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // Of other units of this machine nothing is our matter.
    Some(said.lines().filter(|line| line.contains("agentmon")).collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_setting_is_known_to_systemd() {
    for (unit, _) in UNITS {
        let text = installed(unit);
        let Some(said) = complaints(unit, &text) else { return };
        assert_eq!(said, "", "{unit}");
        // It would say so.
        let wrong = text.replace("ProtectSystem=strict", "ProtectSistem=strict");
        let said = complaints(unit, &wrong).unwrap_or_default();
        assert!(said.contains("ProtectSistem"), "{unit}: a wrong key goes unnoticed: {said}");
    }
}

#[test]
fn the_timer_starts_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = TIMER.replace("timer", "service");
    for unit in [TIMER, &service] {
        std::fs::write(folder.path().join(unit), installed(unit)).expect("written");
    }
    let file = folder.path().join(TIMER);
    let said = || {
        let out = analyze(&["verify", "--man=no", &file.to_string_lossy()])?;
        Some(String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let Some(good) = said() else { return };
    assert!(!good.contains("agentmon"), "{good}");
    std::fs::write(&file, installed(TIMER).replace("OnBootSec=1min", "OnBootSec=soon"))
        .expect("written");
    let bad = said().expect("it was there");
    assert!(bad.contains("timer value"), "a wrong time goes unnoticed: {bad}");
}

#[test]
fn the_sandbox_stays_as_tight_as_it_is() {
    for (unit, most) in UNITS {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(unit);
        std::fs::write(&file, installed(unit)).expect("written");
        let file = file.to_string_lossy();
        let args = |threshold: &str| format!("--threshold={threshold}");
        let security = |most: &str| analyze(&["security", "--offline=true", &args(most), &file]);
        let Some(out) = security(most) else { return };
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{unit} is more exposed than {most} tenths:\n{said}");
        let tighter = security("1").expect("it was there");
        assert!(!tighter.status.success(), "{unit}: the threshold is not heeded");
    }
}

#[test]
fn the_units_run_what_the_programs_know() {
    for (unit, _) in UNITS {
        let text = installed(unit);
        let start = text.lines().find(|line| line.starts_with("ExecStart=")).expect("ExecStart");
        if unit.contains("collect") {
            assert!(start.contains(" collect --once $SOURCE"), "{unit}: {start}");
            continue;
        }
        let word = if unit.contains("hub") { " serve " } else { " run " };
        assert!(start.contains(word) && start.contains(" --config "), "{unit}: {start}");
        // The agent on a host has nothing to read again.
        let again = !unit.contains("host");
        assert_eq!(again, text.contains("ExecReload=/bin/kill -HUP $MAINPID"), "{unit}");
    }
}

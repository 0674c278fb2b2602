//! Writes `tests/scenarios/*/events.ndjson` and `messages.txt` from the scripts. Deterministic; a test says
//! when the files and the scripts differ.

use std::path::Path;

use agentmon_tests::scenario::script::Script;
use agentmon_tests::scenario::{logs, scripts};

fn main() -> std::io::Result<()> {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    for (name, seed, write) in scripts::ALL {
        let mut script = Script::new(seed);
        write(&mut script);
        let folder = scenarios.join(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("events.ndjson"), script.ndjson())?;
        eprintln!("{name}");
    }
    for (name, write) in logs::ALL {
        let folder = scenarios.join(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("messages.txt"), write())?;
        eprintln!("{name}");
    }
    Ok(())
}

//! The strings of the app: the template is current, the translation whole.

use std::collections::BTreeSet;

use agentmon_tests::luci::app;
use agentmon_tests::luci::bus::Fixture;
use agentmon_tests::luci::po::{Catalogue, template};

use super::Stage;

#[test]
fn the_template_is_current() {
    let file = app().join("po/templates/agentmon.pot");
    let made = template(&app());
    if std::env::var_os("AGENTMON_BLESS").is_some() {
        std::fs::write(&file, &made).expect("the template can be written");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == made,
        "po/templates/agentmon.pot is not what the scripts say: \
         AGENTMON_BLESS=1 cargo test -p agentmon-tests --test luci template"
    );
    assert!(Catalogue::parse(&made).originals().len() > 100, "hardly any strings were found");
}

#[test]
fn german_has_every_string() {
    let originals = Catalogue::parse(&template(&app())).originals();
    let german = Catalogue::read(&app().join("po/de/agentmon.po"));
    let known = german.originals();
    let missing: Vec<_> = originals.difference(&known).collect();
    let stale: Vec<_> = known.difference(&originals).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "missing: {missing:#?}\nno longer used: {stale:#?}"
    );
    for (original, translation) in german.pairs() {
        assert!(!translation.is_empty(), "not translated: {original}");
        assert_eq!(places(original), places(translation), "other places than in {original:?}");
    }
}

/// `%s` and its like, in their order: a translation must take the same arguments.
fn places(text: &str) -> Vec<char> {
    let mut letters = text.chars();
    let mut found = Vec::new();
    while letters.any(|c| c == '%') {
        found.extend(letters.next());
    }
    found
}

#[test]
fn every_page_speaks_german() {
    let Some(stage) = Stage::set("german", Fixture::default()) else { return };
    stage.host.language("de");
    for (page, texts) in [
        ("status", &["Übersicht", "verbunden", "vor 4 s", "Ereignisse pro Sekunde"][..]),
        ("alerts", &["Meldungen", "kritisch", "Bestätigen"]),
        ("devices", &["Geräte", "Zuletzt gesehen", "734.003"]),
        ("settings", &["Einstellungen", "Eingeschaltet", "Zentrale"]),
        ("overview", &["1.234", "1 von 3"]),
    ] {
        let browser = stage.open(page);
        for text in texts {
            browser.shows("#view", text);
        }
        browser.picture(page);
    }
    // Words that are the same in both languages are few; the rest is not English by accident.
    let german = Catalogue::read(&app().join("po/de/agentmon.po"));
    let same: BTreeSet<_> = german.pairs().into_iter().filter(|(a, b)| a == b).collect();
    assert!(same.len() < 30, "{same:?}");
    stage.browser.close();
}

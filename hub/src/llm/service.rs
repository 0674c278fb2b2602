//! The thread that asks.
//!
//! In: the configuration; open alerts in the store. Out: calls, opinions and findings through
//! the writer. What waits, waits in the store: an endpoint that is down costs no memory and
//! holds up nothing. Looks every [`LOOK_EVERY`]; asks about at most `batch` alerts at a time.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::{Finding, Severity};
use agentmon_core::time::Clock;
use anyhow::{Context as _, bail};
use rand::TryRngCore as _;

use super::advise::{Advice, advise};
use super::answer::{Confidence, Judgement, Verdict};
use super::book::{self, Call, Opinion, Pending, Spent};
use super::breaker::Breaker;
use super::case;
use super::client::{self, Exchange, Failed};
use super::config::{Config, Tier};
use super::prompt::{self, VERSION};
use crate::alert::rules::OPINION;
use crate::store::StoreError;
use crate::store::found::Run;
use crate::store::handle::Handle;

/// How often to look for alerts without an opinion.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A stopped thread is given this long; an answer it waits for is left behind.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Nothing was learnt: asked again after this.
const UNKNOWN_HOLDS: Duration = Duration::from_secs(600);
/// An opinion that is not good holds so long at most.
const BAD_HOLDS: Duration = Duration::from_secs(86_400);
/// Old calls are thrown away this often.
const TIDY_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// How a tier is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// 1 or 2.
    pub tier: u8,
    /// Off, ready, or why it is not asked.
    pub state: String,
    /// The model.
    pub model: String,
    /// Questions today (UTC).
    pub requests: u64,
    /// Tokens today.
    pub tokens: u64,
    /// Millionths of a US dollar today.
    pub micro_usd: u64,
    /// Alerts that wait for an opinion.
    pub waiting: u64,
}

/// What came of asking again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// The answer's text then.
    pub before: String,
    /// And now.
    pub now: String,
}

#[derive(Default)]
struct Wishes {
    config: Config,
    changed: bool,
    stop: bool,
}

struct Shared {
    wishes: Mutex<Wishes>,
    bell: Condvar,
    /// Of tier 1 and tier 2.
    breakers: Mutex<[Breaker; 2]>,
    /// Why the last question of each tier came to nothing.
    errors: Mutex<[Option<String>; 2]>,
    store: Handle,
    clock: Arc<dyn Clock>,
    /// Of the pseudonyms; another one with each start.
    key: [u8; 16],
}

/// The running thread.
pub struct Service {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Starts it.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn start(config: Config, store: Handle, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let mut key = [0; 16];
        rand::rngs::OsRng.try_fill_bytes(&mut key).context("the system's random numbers")?;
        let shared = Arc::new(Shared {
            wishes: Mutex::new(Wishes { config, ..Wishes::default() }),
            bell: Condvar::new(),
            breakers: Mutex::default(),
            errors: Mutex::default(),
            store,
            clock,
            key,
        });
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("llm".into()).spawn(move || inner.run());
        let thread = Mutex::new(Some(thread.context("starting the thread of the models")?));
        Ok(Self { shared, thread })
    }

    /// Another configuration, from the next look on.
    pub fn reconfigure(&self, config: &Config) {
        let mut wishes = self.shared.wishes();
        if wishes.config != *config {
            wishes.config = config.clone();
            wishes.changed = true;
            self.shared.bell.notify_all();
        }
    }

    /// How each tier is.
    ///
    /// # Errors
    /// What the store says.
    pub fn status(&self) -> anyhow::Result<Vec<Status>> {
        let config = self.shared.wishes().config.clone();
        let (reader, now) = (self.shared.store.readers().get()?, self.shared.clock.wall());
        let waiting = if config.tier1.enabled {
            book::pending(&reader, config.min_severity, 1_000, now)?.len() as u64
        } else {
            0
        };
        [(1, &config.tier1), (2, &config.tier2)]
            .into_iter()
            .map(|(number, tier)| {
                let spent = book::spent(&reader, number, now)?;
                Ok(Status {
                    tier: number,
                    state: self.shared.state(number, tier, spent),
                    model: tier.model.clone(),
                    requests: spent.requests,
                    tokens: spent.tokens,
                    micro_usd: spent.micro_usd,
                    waiting: if number == 1 { waiting } else { 0 },
                })
            })
            .collect()
    }

    /// Asks once more what was asked before, of the same tier as it is set now.
    ///
    /// # Errors
    /// There is no such call, its tier is off, or the endpoint does not answer.
    pub fn replay(&self, id: i64) -> anyhow::Result<Replayed> {
        let config = self.shared.wishes().config.clone();
        let found = book::request(&*self.shared.store.readers().get()?, id)?;
        let (tier, request, response) =
            found.with_context(|| format!("there is no call {id}; see `agentmon llm calls`"))?;
        let settings = if tier == 2 { &config.tier2 } else { &config.tier1 };
        if !settings.enabled {
            bail!("tier {tier} is off");
        }
        let clock = &*self.shared.clock;
        let exchange = client::resend(settings, &config.ca_file, request, 0, clock);
        let text = |bytes: &str| {
            super::wire::read(settings.api, bytes.as_bytes())
                .map_or_else(|bad| bad.to_string(), |a| a.text)
        };
        let now = exchange.text.map_err(|failed| anyhow::anyhow!("{failed}"))?;
        Ok(Replayed { before: text(&response), now })
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.shared.wishes().stop = true;
        self.shared.bell.notify_all();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let (step, mut left) = (Duration::from_millis(10), STOP_PATIENCE);
        while !left.is_zero() && !thread.is_finished() {
            std::thread::sleep(step);
            left = left.saturating_sub(step);
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("the thread of the models had panicked");
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn wishes(&self) -> std::sync::MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut tidied = self.clock.mono();
        loop {
            let config = {
                let mut wishes = self.wishes();
                if wishes.stop {
                    return;
                }
                wishes.changed = false;
                wishes.config.clone()
            };
            let more = config.tier1.enabled
                && self.round(&config).unwrap_or_else(|error| {
                    tracing::error!("llm: {error:#}");
                    false
                });
            if self.clock.mono().since(tidied) >= TIDY_EVERY {
                tidied = self.clock.mono();
                self.forget();
            }
            if !more {
                let wishes = self.wishes();
                let idle = |w: &mut Wishes| !w.stop && !w.changed;
                drop(self.bell.wait_timeout_while(wishes, LOOK_EVERY, idle));
            }
        }
    }

    fn forget(&self) {
        let now = self.clock.wall();
        let done = self.store.run(move |w| w.change(|c| book::forget(c, now)));
        if let Ok(Err(error)) = done {
            tracing::warn!("llm: old calls: {error}");
        }
    }

    /// Asks about some alerts; true when there may be more at once.
    fn round(&self, config: &Config) -> anyhow::Result<bool> {
        let now = self.clock.wall();
        let reader = self.store.readers().get()?;
        let pending = book::pending(&reader, config.min_severity, config.batch, now)?;
        if pending.is_empty() {
            return Ok(false);
        }
        let model = &config.tier1.model;
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for one in pending {
            match book::earlier(&reader, &one.case.digest(model, VERSION), now)? {
                Some(verdict) => known.push((one, verdict)),
                None => unknown.push(one),
            }
        }
        drop(reader);
        let any_known = !known.is_empty();
        if any_known {
            let opinions = known
                .iter()
                .map(|(one, verdict)| self.opinion(config, 1, one, verdict.clone(), false));
            self.keep(None, opinions.collect(), raised(&known))?;
        }
        let batch = batch(unknown);
        if batch.is_empty() || self.state_of(1, &config.tier1)?.is_some() {
            return Ok(any_known);
        }
        self.ask(config, 1, &batch)
    }

    /// Why a tier may not be asked now.
    fn state_of(&self, number: u8, tier: &Tier) -> anyhow::Result<Option<String>> {
        let spent = book::spent(&*self.store.readers().get()?, number, self.clock.wall())?;
        let state = self.state(number, tier, spent);
        Ok((state != READY).then_some(state))
    }

    fn state(&self, number: u8, tier: &Tier, spent: Spent) -> String {
        if !tier.enabled {
            return "off".to_owned();
        }
        if let Some(why) = over_budget(tier, spent) {
            return format!("{why}; goes on at midnight UTC");
        }
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pause) = breakers[usize::from(number == 2)].pause(self.clock.mono()) else {
            return READY.to_owned();
        };
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let why = errors[usize::from(number == 2)].as_deref().unwrap_or("it failed");
        format!("{why}; tried again in {} s", pause.as_secs() + 1)
    }

    /// One question, or two halves of one that is too much; true when somebody has answered.
    fn ask(&self, config: &Config, number: u8, batch: &[Pending]) -> anyhow::Result<bool> {
        let tier = if number == 2 { &config.tier2 } else { &config.tier1 };
        let cases: Vec<_> = batch
            .iter()
            .map(|p| if number == 2 { p.case.outside(&self.key) } else { p.case.clone() })
            .collect();
        let question = prompt::ask(&cases);
        let exchange = client::ask(tier, &config.ca_file, &question, &*self.clock);
        let read = exchange.text.clone().and_then(|text| question.read(&text).map_err(Failed::Bad));
        self.note(number, &read);
        let call = self.call(tier, number, &exchange, batch.len(), &read);
        match read {
            Ok(verdicts) => {
                let told: Vec<(Pending, Verdict)> = batch
                    .iter()
                    .cloned()
                    .zip(verdicts)
                    .map(|(one, verdict)| {
                        let verdict = wary(&one, verdict);
                        (one, verdict)
                    })
                    .collect();
                let opinions = told
                    .iter()
                    .map(|(one, verdict)| self.opinion(config, number, one, verdict.clone(), true));
                self.keep(Some(call), opinions.collect(), raised(&told))?;
                if number == 1 {
                    self.escalate(config, &told)?;
                }
                Ok(true)
            }
            Err(Failed::Endpoint { .. }) => {
                self.keep(Some(call), Vec::new(), Vec::new())?;
                Ok(false)
            }
            Err(Failed::TooLong | Failed::Bad(_)) if batch.len() > 1 => {
                self.keep(Some(call), Vec::new(), Vec::new())?;
                let (left, right) = batch.split_at(batch.len() / 2);
                // A tier that has just used up its budget is not asked for the other half.
                let first = self.ask(config, number, left)?;
                if first && self.state_of(number, tier)?.is_none() {
                    self.ask(config, number, right)?;
                }
                Ok(first)
            }
            Err(_) => {
                // Alone and still no answer: left alone for a while.
                let opinions = batch
                    .iter()
                    .map(|one| self.opinion(config, number, one, no_verdict(), true))
                    .collect();
                self.keep(Some(call), opinions, Vec::new())?;
                Ok(true)
            }
        }
    }

    /// What the first tier could not settle goes to the second one.
    fn escalate(&self, config: &Config, told: &[(Pending, Verdict)]) -> anyhow::Result<()> {
        if !config.tier2.enabled || self.state_of(2, &config.tier2)?.is_some() {
            return Ok(());
        }
        let open = |(one, verdict): &&(Pending, Verdict)| {
            let severity = Severity::from_score(one.case.score);
            let settled =
                verdict.judgement == Judgement::Benign && verdict.confidence > Confidence::Low;
            severity >= Severity::Medium && !settled
        };
        let batch = batch(told.iter().filter(open).map(|(one, _)| one.clone()).collect());
        if !batch.is_empty() {
            self.ask(config, 2, &batch)?;
        }
        Ok(())
    }

    fn note(&self, number: u8, read: &Result<Vec<Verdict>, Failed>) {
        let at = usize::from(number == 2);
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Err(failed @ Failed::Endpoint { wait, .. }) => {
                if breakers[at].pause(self.clock.mono()).is_none() {
                    tracing::warn!(tier = number, "llm: {failed}");
                }
                breakers[at].failed(self.clock.mono(), *wait);
                errors[at] = Some(failed.to_string());
            }
            Err(failed) => {
                tracing::info!(tier = number, "llm: {failed}");
                breakers[at].answered();
                errors[at] = Some(failed.to_string());
            }
            Ok(_) => {
                breakers[at].answered();
                errors[at] = None;
            }
        }
    }

    fn call(
        &self,
        tier: &Tier,
        number: u8,
        exchange: &Exchange,
        cases: usize,
        read: &Result<Vec<Verdict>, Failed>,
    ) -> Call {
        Call {
            time: self.clock.wall(),
            tier: number,
            endpoint: tier.url.clone(),
            model: tier.model.clone(),
            answered: exchange.answered.clone(),
            prompt: VERSION,
            request: exchange.request.clone(),
            response: exchange.response.clone(),
            cases,
            latency: exchange.latency,
            usage: exchange.usage,
            micro_usd: tier.cost(&exchange.usage),
            outcome: read.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned()),
        }
    }

    fn opinion(
        &self,
        config: &Config,
        tier: u8,
        one: &Pending,
        verdict: Verdict,
        fresh: bool,
    ) -> Opinion {
        let holds = match verdict.judgement {
            Judgement::Unknown if verdict.category == "other" && verdict.facts.is_empty() => {
                UNKNOWN_HOLDS
            }
            Judgement::Benign => Duration::from_secs(config.keep_hours * 3_600),
            _ => Duration::from_secs(config.keep_hours * 3_600).min(BAD_HOLDS),
        };
        let model = if tier == 2 { &config.tier2.model } else { &config.tier1.model };
        Opinion {
            alert: one.case.alert,
            tier,
            fresh,
            digest: one.case.digest(model, VERSION),
            advice: advise(one.case.known_bad, one.case.score, &verdict),
            verdict,
            expires: self.clock.wall().plus(holds),
        }
    }

    /// One transaction: the call, the opinions, and the findings that came of them.
    fn keep(
        &self,
        call: Option<Call>,
        opinions: Vec<Opinion>,
        findings: Vec<Finding>,
    ) -> Result<(), StoreError> {
        let now: Timestamp = self.clock.wall();
        let learnt = Box::new(move |connection: &duckdb::Connection| {
            book::keep(connection, call.as_ref(), &opinions, now)
        });
        let run = Run { detector: OPINION, now, round: None, findings, learnt: Some(learnt) };
        let stored = self.store.run(move |writer| writer.found(run));
        stored.map_err(|refused| StoreError::Db(refused.to_string()))?.map(drop)
    }
}

/// The word for a tier that may be asked.
const READY: &str = "ready";

fn over_budget(tier: &Tier, spent: Spent) -> Option<&'static str> {
    let over = |used: u64, most: u64| most > 0 && used >= most;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: at most 1e11"
    )]
    let money = (tier.usd_per_day * 1e6) as u64;
    if over(spent.requests, tier.requests_per_day) {
        Some("the day's questions are asked")
    } else if over(spent.tokens, tier.tokens_per_day) {
        Some("the day's tokens are used")
    } else if over(spent.micro_usd, money) {
        Some("the day's money is spent")
    } else {
        None
    }
}

/// The cases of one question: one whose subject talks to the reader is asked about alone.
fn batch(mut pending: Vec<Pending>) -> Vec<Pending> {
    match pending.iter().position(|p| case::talks(&p.case.subject)) {
        Some(0) => {
            pending.truncate(1);
            pending
        }
        Some(first) => {
            pending.truncate(first);
            pending
        }
        None => pending,
    }
}

/// No good word about a subject that talks is believed.
fn wary(one: &Pending, verdict: Verdict) -> Verdict {
    if verdict.judgement == Judgement::Benign && case::talks(&one.case.subject) {
        return Verdict {
            judgement: Judgement::Suspicious,
            confidence: Confidence::Low,
            ..verdict
        };
    }
    verdict
}

fn no_verdict() -> Verdict {
    Verdict {
        judgement: Judgement::Unknown,
        category: "other".to_owned(),
        confidence: Confidence::Low,
        facts: Vec::new(),
        note: String::new(),
    }
}

/// The findings that opinions make.
fn raised(told: &[(Pending, Verdict)]) -> Vec<Finding> {
    let finding = |(one, verdict): &(Pending, Verdict)| {
        let Advice::Raise(score) = advise(one.case.known_bad, one.case.score, verdict) else {
            return None;
        };
        let why = format!(
            "a language model takes {} for malicious ({}), by what is measured of it; alert {} says what",
            one.case.subject, verdict.category, one.case.alert
        );
        let finding = Finding {
            rule: OPINION.to_owned(),
            subject: one.case.subject.clone(),
            client: one.client,
            mac: one.mac,
            score,
            why,
            evidence: Vec::new(),
        };
        Some(
            finding
                .with("alert", one.case.alert)
                .with("category", &verdict.category)
                .with("confidence", verdict.confidence.as_str())
                .with("facts", verdict.facts.join(" ")),
        )
    };
    told.iter().filter_map(finding).collect()
}

//! Who started whom, and should not have: rules about a program with a connection.
//!
//! In: rules as data ([`Rule`], TOML), a process with its ancestors, where it connected to.
//! Out: the rules that hold. In two steps, since a process has many connections: once per
//! process which rules its kind fits ([`Ancestry::suspects`]), then for each connection of it
//! whether the place fits too ([`Ancestry::fits`]). Pure.
//!
//! `parent` is the program that started it, shells in between not counted: what a program runs
//! by `sh -c` is its own doing. Names are compared without regard to case and `.exe`. Every
//! key that is given must hold, any value of a key will do.
//!
//! Invariants: at most [`RULES_MAX`] rules; a rule that says nothing of the program or of the
//! place is refused, since it would tell everything.

use serde::{Deserialize, Serialize};

use super::compile::Problem;
use super::decide::Destination;
use super::glob::Glob;
use super::pattern::{Pattern, Place};
use super::policy::Some1;
use crate::event::{Process, Program, is_public};
use crate::finding::Severity;

/// Most rules.
pub const RULES_MAX: usize = 512;
/// They pass orders on; what they run is their parent's doing.
const SHELLS: [&str; 10] =
    ["ash", "bash", "busybox", "cmd", "dash", "env", "fish", "ksh", "sh", "zsh"];

/// One rule as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Names it, also for whoever overrides it.
    pub id: String,
    /// What it means, after "looks like".
    pub title: String,
    /// How bad.
    pub severity: Severity,
    /// Whether it counts.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// `linux`, `macos`, `windows`; none: all.
    #[serde(default)]
    pub os: Some1,
    /// Name of the program that started it, shells not counted.
    #[serde(default)]
    pub parent: Some1,
    /// One of that one's arguments.
    #[serde(default)]
    pub parent_argv: Some1,
    /// That one's file.
    #[serde(default)]
    pub parent_exe: Some1,
    /// Not these parents.
    #[serde(default)]
    pub except_parent: Some1,
    /// Name of any program above it.
    #[serde(default)]
    pub ancestor: Some1,
    /// The program's name.
    #[serde(default)]
    pub child: Some1,
    /// Its file.
    #[serde(default)]
    pub exe: Some1,
    /// One of its arguments.
    #[serde(default)]
    pub argv: Some1,
    /// Not these programs.
    #[serde(default)]
    pub except_child: Some1,
    /// Not these files.
    #[serde(default)]
    pub except_exe: Some1,
    /// Not with these arguments.
    #[serde(default)]
    pub except_argv: Some1,
    /// Not where it counts as one of these, by `id` of policy or catalogue; `*`: as anything
    /// that is defined.
    #[serde(default)]
    pub except_subject: Some1,
    /// Only what nobody signed.
    #[serde(default)]
    pub unsigned: bool,
    /// Only to these places, as in a policy, without classes.
    #[serde(default)]
    pub to: Some1,
    /// Only to public addresses.
    #[serde(default)]
    pub public: bool,
    /// Only to addresses nobody resolved a name to.
    #[serde(default)]
    pub bare: bool,
    /// Only to ports other than these.
    #[serde(default)]
    pub except_ports: Vec<u16>,
    /// Where the rule is from, and when it was looked at.
    pub source: String,
    /// The day of that.
    pub date: String,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Debug)]
struct Ready {
    rule: Rule,
    parent_argv: Vec<Glob>,
    parent_exe: Vec<Glob>,
    exe: Vec<Glob>,
    argv: Vec<Glob>,
    except_exe: Vec<Glob>,
    except_argv: Vec<Glob>,
    names: Names,
    to: Vec<Pattern>,
}

/// Names, lower case.
#[derive(Clone, Debug)]
struct Names {
    parent: Vec<Glob>,
    except_parent: Vec<Glob>,
    ancestor: Vec<Glob>,
    child: Vec<Glob>,
    except_child: Vec<Glob>,
    except_subject: Vec<Glob>,
}

/// Rules ready to be used.
#[derive(Clone, Debug, Default)]
pub struct Ancestry(Vec<Ready>);

impl Ancestry {
    /// Makes rules ready.
    ///
    /// # Errors
    /// All that is wrong with them; nothing is used then.
    pub fn compile(rules: &[Rule]) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if rules.len() > RULES_MAX {
            problems.push(Problem::error("rule", format!("more than {RULES_MAX} rules")));
            return Err(problems);
        }
        let mut ready = Vec::new();
        for (n, rule) in rules.iter().enumerate() {
            let place = format!("rule[{n}] `{}`", crate::name::printable(rule.id.as_bytes(), 64));
            if rule.id.is_empty() || rules.iter().take(n).any(|r| r.id == rule.id) {
                problems.push(Problem::error(&place, "an id is a word of its own"));
            }
            if says_nothing(rule) {
                let text = "says nothing of the program, its parent or where it goes";
                problems.push(Problem::error(&place, text));
            }
            let to = rule.to.iter().filter_map(|text| match text.parse::<Pattern>() {
                Ok(pattern) if !matches!(pattern.place, Place::Class(_)) => Some(pattern),
                Ok(_) => {
                    problems.push(Problem::error(&place, format!("`{text}`: no classes here")));
                    None
                }
                Err(error) => {
                    problems.push(Problem::error(&place, error.to_string()));
                    None
                }
            });
            let to = to.collect();
            ready.push(Ready::new(rule, to));
        }
        if problems.is_empty() { Ok(Self(ready)) } else { Err(problems) }
    }

    /// Numbers of the rules whose program this is; `subject` is whose authority it counts as.
    #[must_use]
    pub fn suspects(&self, process: &Process, subject: Option<&str>) -> Vec<u16> {
        let all = (0u16..).zip(&self.0);
        let all = all.filter(|(_, r)| r.rule.enabled && r.is_program(process, subject));
        all.map(|(n, _)| n).collect()
    }

    /// The rule of that number, where the connection fits it too.
    #[must_use]
    pub fn fits(&self, number: u16, to: &Destination<'_>) -> Option<&Rule> {
        let ready = self.0.get(usize::from(number))?;
        ready.is_place(to).then_some(&ready.rule)
    }

    /// How many rules count.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.0.iter().filter(|r| r.rule.enabled).count()
    }
}

fn says_nothing(rule: &Rule) -> bool {
    let lists = [
        &rule.parent,
        &rule.parent_argv,
        &rule.parent_exe,
        &rule.ancestor,
        &rule.child,
        &rule.exe,
        &rule.argv,
        &rule.to,
    ];
    lists.iter().all(|list| list.is_empty()) && !rule.unsigned && !rule.bare
}

impl Ready {
    fn new(rule: &Rule, to: Vec<Pattern>) -> Self {
        let texts = |list: &[String]| list.iter().map(|t| Glob::text(t)).collect();
        let paths = |list: &[String]| list.iter().map(|t| Glob::path(t)).collect();
        let names = |list: &[String]| list.iter().map(|t| Glob::text(&plain(t))).collect();
        Self {
            parent_argv: texts(&rule.parent_argv),
            parent_exe: paths(&rule.parent_exe),
            exe: paths(&rule.exe),
            argv: texts(&rule.argv),
            except_exe: paths(&rule.except_exe),
            except_argv: texts(&rule.except_argv),
            names: Names {
                parent: names(&rule.parent),
                except_parent: names(&rule.except_parent),
                ancestor: names(&rule.ancestor),
                child: names(&rule.child),
                except_child: names(&rule.except_child),
                except_subject: texts(&rule.except_subject),
            },
            to,
            rule: rule.clone(),
        }
    }

    fn is_program(&self, process: &Process, subject: Option<&str>) -> bool {
        let (program, names) = (&process.program, &self.names);
        let own = name_of(program);
        let parent = process.ancestors.iter().find(|p| !is_shell(p));
        let parent_name = parent.map(name_of);
        let exe = program.exe.as_deref();
        let is = |globs: &[Glob], text: Option<&str>| globs.is_empty() || hit(globs, text);
        let argument = |globs: &[Glob], of: Option<&Program>| {
            of.is_some_and(|p| p.argv.iter().any(|a| hit(globs, Some(a))))
        };
        (self.rule.os.is_empty() || self.rule.os.contains(&process.os))
            && is(&names.child, Some(&own))
            && is(&self.exe, exe)
            && (self.argv.is_empty() || argument(&self.argv, Some(program)))
            && is(&names.parent, parent_name.as_deref())
            && is(&self.parent_exe, parent.and_then(|p| p.exe.as_deref()))
            && (self.parent_argv.is_empty() || argument(&self.parent_argv, parent))
            && (names.ancestor.is_empty()
                || process.ancestors.iter().any(|p| hit(&names.ancestor, Some(&name_of(p)))))
            && !(self.rule.unsigned && program.signer.is_some())
            && !hit(&names.except_child, Some(&own))
            && !hit(&self.except_exe, exe)
            && !argument(&self.except_argv, Some(program))
            // Whose parent nobody knows may have been started by an innocent one.
            && (names.except_parent.is_empty()
                || parent_name.as_deref().is_some_and(|p| !hit(&names.except_parent, Some(p))))
            && !hit(&names.except_subject, subject)
    }

    fn is_place(&self, to: &Destination<'_>) -> bool {
        let ip = to.ip.to_canonical();
        !ip.is_loopback()
            && (!self.rule.public || is_public(ip))
            && (!self.rule.bare || to.names.is_empty())
            && !self.rule.except_ports.contains(&to.port)
            && (self.to.is_empty() || self.to.iter().any(|p| reaches(p, to)))
    }
}

fn reaches(pattern: &Pattern, to: &Destination<'_>) -> bool {
    let ip = to.ip.to_canonical();
    let place = match &pattern.place {
        Place::Any => true,
        Place::Lan => !is_public(ip),
        Place::Loopback => ip.is_loopback(),
        Place::Net(net) => net.contains(&ip),
        Place::Exact(name) => to.names.contains(name),
        Place::Below(name) => to.names.iter().any(|n| n != name && n.is_at_or_below(name.as_str())),
        Place::AtOrBelow(name) => to.names.iter().any(|n| n.is_at_or_below(name.as_str())),
        Place::Class(_) => false,
    };
    place && pattern.fits(to.port, to.proto)
}

fn hit(globs: &[Glob], text: Option<&str>) -> bool {
    text.is_some_and(|text| globs.iter().any(|glob| glob.matches(text)))
}

fn is_shell(program: &Program) -> bool {
    SHELLS.contains(&name_of(program).as_str())
}

fn name_of(program: &Program) -> String {
    plain(super::identity::own_name(program))
}

fn plain(name: &str) -> String {
    let name = name.to_lowercase();
    name.strip_suffix(".exe").map_or(name.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;

    const RULES: &str = r#"
        [[rule]]
        id = "server"
        title = "a web server that fetches"
        severity = "high"
        parent = ["nginx", "java"]
        child = ["curl", "python*"]
        except_argv = ["--health"]
        source = "own"
        date = "2026-11-24"
        [[rule]]
        id = "shell"
        title = "a shell with a line of its own"
        severity = "high"
        os = "linux"
        child = ["bash", "sh"]
        public = true
        source = "own"
        date = "2026-11-24"
        [[rule]]
        id = "odd"
        title = "an implant"
        severity = "medium"
        unsigned = true
        bare = true
        except_ports = [80, 443]
        except_subject = ["*"]
        source = "own"
        date = "2026-11-24"
        [[rule]]
        id = "masquerade"
        title = "a service nobody started"
        severity = "high"
        child = "svchost.exe"
        except_parent = "services.exe"
        source = "own"
        date = "2026-11-24"
        [[rule]]
        id = "bot"
        title = "orders by chat"
        severity = "medium"
        to = [".telegram.example", "198.51.100.0/24:4444"]
        except_child = "telegram"
        source = "own"
        date = "2026-11-24"
    "#;

    #[derive(Deserialize)]
    struct File {
        rule: Vec<Rule>,
    }

    fn ready(text: &str) -> Result<Ancestry, Vec<Problem>> {
        Ancestry::compile(&toml::from_str::<File>(text).unwrap().rule)
    }

    /// `curl --x < sh < nginx`, nearest first; `@` signs.
    fn process(chain: &str, os: &str) -> Process {
        let program = |one: &str| {
            let mut words = one.split(' ').map(str::to_owned);
            let name = words.next().unwrap();
            let signer = name.starts_with('@').then(|| "somebody".to_owned());
            let name = name.trim_start_matches('@').to_owned();
            Program { name, signer, argv: words.collect(), ..Program::default() }
        };
        let mut all = chain.split(" < ").map(program);
        Process {
            os: os.into(),
            program: all.next().unwrap(),
            ancestors: all.collect(),
            ..Process::default()
        }
    }

    /// Rules that hold for a program on Linux and a place `name=address:port`.
    #[track_caller]
    fn check_on(os: &str, chain: &str, subject: Option<&str>, place: &str, expected: &str) {
        let rules = ready(RULES).unwrap();
        let (name, address) = place.split_once('=').unwrap_or(("", place));
        let at: std::net::SocketAddr = address.parse().unwrap();
        let names: Vec<Name> = name.parse().into_iter().collect();
        let to = Destination { names: &names, ip: at.ip(), port: at.port(), proto: 6 };
        let suspects = rules.suspects(&process(chain, os), subject);
        let found: Vec<&str> =
            suspects.iter().filter_map(|n| rules.fits(*n, &to)).map(|r| r.id.as_str()).collect();
        assert_eq!(found.join(" "), expected, "{chain} -> {place}");
    }

    #[track_caller]
    fn check(chain: &str, place: &str, expected: &str) {
        check_on("linux", chain, None, place, expected);
    }

    #[test]
    fn what_a_server_starts_also_by_a_shell() {
        let web = "www.example.com=203.0.113.5:443";
        check("curl < nginx", web, "server");
        check("curl < sh < nginx < systemd", web, "server");
        check("Python3.11 < dash < sh < java", web, "server");
        check("curl --health < nginx", web, "");
        check("curl < bash < sshd", web, "");
        // What nginx itself does, and what something else below it started.
        check("nginx < systemd", web, "");
        check("curl < cron < nginx", web, "");
    }

    #[test]
    fn a_shell_that_talks_itself() {
        check("bash < sshd", "203.0.113.5:4444", "shell odd");
        check("bash < sshd", "192.168.1.5:4444", "odd");
        check_on("macos", "bash", None, "x.example=203.0.113.5:4444", "");
    }

    #[test]
    fn unsigned_to_a_bare_address_on_an_odd_port() {
        check("tool", "203.0.113.5:4433", "odd");
        check("@tool", "203.0.113.5:4433", "");
        check("tool", "203.0.113.5:443", "");
        check("tool", "x.example=203.0.113.5:4433", "");
        check("tool", "127.0.0.1:4433", "");
        check("tool", "[::ffff:127.0.0.1]:4433", "");
        check_on("linux", "tool", Some("claude-code"), "203.0.113.5:4433", "");
    }

    #[test]
    fn names_of_windows_and_who_may_start_whom() {
        let web = "www.example.com=203.0.113.5:443";
        check_on("windows", "@SVCHOST.EXE < cmd.exe < Evil.exe", None, web, "masquerade");
        check_on("windows", "@svchost.exe < services.exe", None, web, "");
        check_on("windows", "@svchost.exe", None, web, "");
    }

    #[test]
    fn places() {
        check("python", "api.telegram.example=203.0.113.5:443", "bot");
        check("Telegram", "api.telegram.example=203.0.113.5:443", "");
        check("@python", "198.51.100.9:4444", "bot");
        check("@python", "198.51.100.9:4445", "");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let rule = |rest: &str| {
            format!(
                "[[rule]]\nid = \"a\"\ntitle = \"t\"\nseverity = \"low\"\nsource = \"s\"\ndate = \"2026-11-24\"\n{rest}\n"
            )
        };
        let wrong = |text: &str, expected: &str| {
            let problems = ready(text).unwrap_err();
            assert!(problems[0].to_string().contains(expected), "{problems:?}");
        };
        wrong(&rule("public = true"), "says nothing");
        wrong(&rule("child = \"a\"\nto = [\"ai:any\"]"), "no classes");
        wrong(&rule("child = \"a\"\nto = [\"10.0.0.0/99\"]"), "10.0.0.0/99");
        wrong(&(rule("child = \"a\"") + &rule("child = \"b\"")), "word of its own");
        assert_eq!(ready(&rule("child = \"a\"\nenabled = false")).unwrap().rules(), 0);
    }

    proptest::proptest! {
        #[test]
        fn any_chain_is_judged(chain in proptest::collection::vec("\\PC{0,12}|nginx|sh|curl", 1..20)) {
            let rules = ready(RULES).unwrap();
            let mut all = chain.iter().map(|name| Program { name: name.clone(), ..Program::default() });
            let process = Process { program: all.next().unwrap(), ancestors: all.collect(), ..Process::default() };
            for number in rules.suspects(&process, None) {
                proptest::prop_assert!(usize::from(number) < rules.0.len());
            }
        }
    }
}

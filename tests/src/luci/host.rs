//! The page host: one small web server on loopback, a thread of its own.
//!
//! | path | what |
//! |---|---|
//! | `/cgi-bin/luci/PATH` | the page that the app's `menu.d` names for PATH |
//! | `/luci-static/resources/...` | the app's files, behind them the client's |
//! | `/luci-static/theme/...` | the theme |
//! | `/catalogue.js` | the translation |
//! | `/ubus` | JSON-RPC, see [`super::rpc`] |
//!
//! The client is the stand-in in `tests/luci`, or that of a LuCI source tree where
//! `AGENTMON_LUCI` names one. Both are set up by the same page.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::app;
use super::bus::Bus;
use super::po::Catalogue;
use super::rpc::{Rights, Rpc};
use super::uci::Uci;

/// The page that holds the card, as LuCI names it.
const OVERVIEW: &str = "admin/status/overview";

/// A running page host. Its thread ends with the test's process.
pub struct Host {
    address: SocketAddr,
    state: Arc<Shared>,
}

struct Shared {
    bus: Arc<dyn Bus>,
    uci: Arc<Uci>,
    acl: Value,
    menu: Value,
    client: Client,
    login: Mutex<Login>,
    /// The router is gone: calls get no proper answer.
    down: AtomicBool,
}

/// Who looks, in which language.
struct Login {
    rights: Rights,
    language: &'static str,
}

/// Where the client's files are.
struct Client {
    resources: Vec<PathBuf>,
    theme: PathBuf,
    real: bool,
}

impl Client {
    fn find() -> Self {
        let app = app().join("htdocs/luci-static/resources");
        let Some(tree) = std::env::var_os("AGENTMON_LUCI").map(PathBuf::from) else {
            let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("luci");
            let resources = vec![app, own.join("resources")];
            return Self { resources, theme: own.join("theme"), real: false };
        };
        let part = |path: &str| tree.join(path).join("htdocs/luci-static");
        let modules =
            ["modules/luci-base", "modules/luci-mod-status"].map(|m| part(m).join("resources"));
        let resources = [app].into_iter().chain(modules).collect();
        Self { resources, theme: part("themes/luci-theme-bootstrap").join("bootstrap"), real: true }
    }
}

impl Host {
    /// Serves the app before `bus`, to somebody who may do everything, in English.
    ///
    /// # Panics
    /// When there is no port on loopback, or the app lacks its files.
    #[must_use]
    pub fn start(bus: Arc<dyn Bus>) -> Self {
        let read = |path: &str| {
            std::fs::read_to_string(app().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
        };
        let parsed = |path: &str| {
            serde_json::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
        };
        let state = Arc::new(Shared {
            bus,
            uci: Arc::new(Uci::parse(&read("../agentmon/files/etc/config/agentmon"))),
            acl: parsed("root/usr/share/rpcd/acl.d/luci-app-agentmon.json"),
            menu: parsed("root/usr/share/luci/menu.d/luci-app-agentmon.json"),
            client: Client::find(),
            down: AtomicBool::new(false),
            login: Mutex::new(Login { rights: Rights::all(), language: "en" }),
        });
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("a bound port has an address");
        let service = Router::new().fallback(serve).with_state(Arc::clone(&state));
        std::thread::spawn(move || run(listener, service));
        Self { address, state }
    }

    /// Whether the client is a real LuCI.
    #[must_use]
    pub fn real_luci(&self) -> bool {
        self.state.client.real
    }

    /// The settings as they stand.
    #[must_use]
    pub fn uci(&self) -> &Uci {
        &self.state.uci
    }

    /// The next page is for somebody with these rights.
    pub fn rights(&self, rights: Rights) {
        self.login().rights = rights;
    }

    /// The next page is in this language.
    pub fn language(&self, language: &'static str) {
        self.login().language = language;
    }

    /// From now on calls get no proper answer, as if the router were gone; or they do again.
    pub fn down(&self, down: bool) {
        self.state.down.store(down, Ordering::Relaxed);
    }

    /// Where a page is: `status`, `alerts`, `devices`, `settings`, or `overview`.
    #[must_use]
    pub fn url(&self, page: &str) -> String {
        let path = if page == "overview" {
            OVERVIEW.to_owned()
        } else {
            format!("admin/services/agentmon/{page}")
        };
        format!("http://{}/cgi-bin/luci/{path}", self.address)
    }

    fn login(&self) -> std::sync::MutexGuard<'_, Login> {
        self.state.login.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(listener: std::net::TcpListener, service: Router) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async move {
        listener.set_nonblocking(true).expect("a listener can be made non-blocking");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        axum::serve(listener, service).await.expect("the page host goes on");
    });
}

async fn serve(State(state): State<Arc<Shared>>, uri: Uri, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    // A bus may take its time: not on the thread that serves files.
    let answer = tokio::task::spawn_blocking(move || state.answer(&path, &body));
    let answer = answer.await.expect("an answer does not panic");
    match answer {
        Some((kind, content)) => ([(header::CONTENT_TYPE, kind)], content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Shared {
    fn answer(&self, path: &str, body: &[u8]) -> Option<(&'static str, Vec<u8>)> {
        if let Some(page) = path.strip_prefix("/cgi-bin/luci/") {
            return Some(("text/html; charset=utf-8", self.page(page)?.into_bytes()));
        }
        if let Some(file) = path.strip_prefix("/luci-static/resources/") {
            return self.client.resources.iter().find_map(|folder| read(folder, file));
        }
        if let Some(file) = path.strip_prefix("/luci-static/theme/") {
            return read(&self.client.theme, file);
        }
        match path {
            "/catalogue.js" => Some(("text/javascript", self.catalogue().into_bytes())),
            "/ubus" | "/ubus/" if self.down.load(Ordering::Relaxed) => None,
            "/ubus" | "/ubus/" => {
                Some(("application/json", self.rpc().answer(body).to_string().into_bytes()))
            }
            // Browsers ask for it unasked.
            "/favicon.ico" => Some(("image/x-icon", Vec::new())),
            _ => None,
        }
    }

    fn rpc(&self) -> Rpc {
        let login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        Rpc::new(Arc::clone(&self.bus), Arc::clone(&self.uci), &self.acl, &login.rights)
    }

    fn catalogue(&self) -> String {
        let language = self.login.lock().unwrap_or_else(PoisonError::into_inner).language;
        let pairs = match language {
            "en" => json!({}),
            language => {
                json!(Catalogue::read(&app().join(format!("po/{language}/agentmon.po"))).pairs())
            }
        };
        // LuCI knows translations by a hash of the original, the stand-in by the original.
        format!(
            "for (const [k, v] of Object.entries({pairs})) (window.TR ??= {{}})[window.sfh ? sfh(k) : k] = v;"
        )
    }

    /// The page for a path of the menu, with what LuCI's own header and footer set up.
    fn page(&self, path: &str) -> Option<String> {
        let view = if path == OVERVIEW {
            "status/index"
        } else {
            self.menu[path]["action"]["path"].as_str()?
        };
        let login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        let language = login.language;
        let setup = json!({
            "media": "/luci-static/theme", "resource": "/luci-static/resources",
            "scriptname": "/cgi-bin/luci", "pathinfo": format!("/{path}"), "documentroot": "/www",
            "requestpath": path.split('/').collect::<Vec<_>>(), "dispatchpath": path.split('/').collect::<Vec<_>>(),
            // Short, so that tests see a change soon.
            "pollinterval": 1, "ubuspath": "/ubus/", "sessionid": "0123456789abcdef0123456789abcdef", "token": "t",
            "nodespec": { "satisfied": true, "readonly": login.rights.write.is_empty() },
            "apply_rollback": 90, "apply_holdoff": 4, "apply_timeout": 5, "apply_display": 1.5
        });
        Some(format!(
            r#"<!DOCTYPE html><html lang="{language}"><head><meta charset="utf-8"><title>router</title>
<script>
const dark = matchMedia('(prefers-color-scheme: dark)');
const set = () => document.documentElement.setAttribute('data-darkmode', dark.matches);
dark.addEventListener('change', set); set();
</script>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/luci-static/theme/cascade.css">
<link rel="stylesheet" media="only screen and (max-device-width: 854px)" href="/luci-static/theme/mobile.css">
<script src="/luci-static/resources/cbi.js"></script><script src="/catalogue.js"></script></head>
<body class="lang_{language}" data-page="{page}">
<header><a class="brand" href="/">router</a><ul class="nav" id="topmenu"></ul><div id="indicators" class="pull-right"></div></header>
<div id="maincontent" class="container"><div id="tabmenu" style="display:none"></div>
<script src="/luci-static/resources/luci.js"></script><script>L = new LuCI({setup});</script>
<div id="view"><div class="spinning">Loading view…</div>
<script>L.require('ui').then((ui) => ui.instantiateView('{view}'));</script></div>
</div><footer></footer></body></html>"#,
            page = path.replace('/', "-"),
        ))
    }
}

/// A file below a folder, with its type.
fn read(folder: &Path, file: &str) -> Option<(&'static str, Vec<u8>)> {
    let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    let content = inside.then(|| std::fs::read(folder.join(file)).ok())??;
    let kind = match Path::new(file).extension()?.to_str()? {
        "js" => "text/javascript",
        "css" => "text/css",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    };
    Some((kind, content))
}

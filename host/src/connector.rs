//! Connectors at work: the plugin that is asked before an endpoint dials, in whichever version is current.
//!
//! One instance answers dial after dial, until it fails, a newer version of its plugin is there, or a file in its
//! configuration has another text. It works in a task of its own, so that the pipeline's task is never held up, and a
//! question that nobody waits for any more is given up with that task. What a plugin keeps through the `state` import
//! outlives its instances.

use crate::config::{self, EndpointText, Redacted};
use crate::message::metadata::now_us;
use crate::plugin::{
    ConnectorInstance, DialAttempt, Fault, FaultKind, FirstAnswers, HostState, Http, PlannedDial, Plugin,
    PluginKind, Setup, StatePart,
};
use crate::telemetry::GuestMetrics;
use crate::websocket::{BeforeConnect, NoPlan, resolved};
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A timer that is asked for more often is called so often: it is for what has to be kept alive, not for work.
const LEAST_TICK: Duration = Duration::from_millis(100);

/// The current version of each plugin. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct CurrentPlugins {
    plugins: Arc<Mutex<BTreeMap<String, Plugin>>>,
}

/// The plugin of one endpoint that is asked before each dial. A cheap handle, which outlives the connections.
#[derive(Clone, Debug)]
pub struct Connector {
    desk: Arc<Desk>,
}

#[derive(Debug)]
struct Desk {
    plugin: Redacted,
    /// What an instance is given, but for the files in its configuration.
    setup: Setup,
    config: EndpointText,
    timeout: Duration,
    plugins: CurrentPlugins,
    state: Mutex<DeskState>,
}

#[derive(Debug, Default)]
struct DeskState {
    /// `None` while it works, and after it has failed.
    instance: Option<ConnectorInstance>,
    /// How often the last instance wants its timer called.
    tick: Option<Duration>,
    /// What it was given and gave, and must not tell.
    confided: Redacted,
}

impl CurrentPlugins {
    /// The current version of a plugin, if it is there.
    pub fn get(&self, name: &str) -> Option<Plugin> {
        self.lock().get(name).cloned()
    }

    /// The names of the plugins that are there.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Puts a version in the place of the one before.
    pub fn put(&self, plugin: Plugin) {
        self.lock().insert(plugin.name().to_string(), plugin);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Plugin>> {
        // Each change is complete in itself, so a panic elsewhere leaves it sound.
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector {
    /// The connector of an endpoint: `pipeline` and `endpoint` are their names, `http` sends its requests.
    pub fn new(
        (pipeline, endpoint): (&str, &str),
        config: &config::ConnectorSettings,
        http: Option<Arc<dyn Http>>,
        metrics: GuestMetrics,
        plugins: CurrentPlugins,
    ) -> Self {
        let setup = Setup {
            pipeline: pipeline.into(),
            transform: endpoint.into(),
            kind: PluginKind::Connector,
            part: StatePart::WHOLE,
            config: config.config.known().clone(),
            limits: config.limits(),
            is_replay: false,
            state: HostState::default(),
            http,
            metrics,
            is_shadow: false,
            retries: 0,
            first_answers: FirstAnswers::default(),
        };
        let (plugin, timeout) = (config.plugin.clone(), config.timeout);
        let (config, state) = (config.config.clone(), Mutex::default());
        Self { desk: Arc::new(Desk { plugin, setup, config, timeout, plugins, state }) }
    }

    /// The name of its plugin.
    pub fn plugin(&self) -> &Redacted {
        &self.desk.plugin
    }

    /// The name of its endpoint.
    pub fn endpoint(&self) -> &str {
        &self.desk.setup.transform
    }

    /// Whether a version of the plugin takes its configuration.
    ///
    /// # Errors
    /// The fault that its start ended with.
    pub async fn try_out(&self, plugin: &Plugin) -> Result<(), Fault> {
        let instance = plugin.instantiate_connector(&self.desk.setup_now().await?).await?;
        // Unmapping its memory takes a while.
        let dropped = tokio::task::spawn_blocking(move || drop(instance)).await;
        dropped.expect("dropping an instance does not panic");
        Ok(())
    }
}

impl BeforeConnect for Connector {
    fn name(&self) -> &str {
        self.desk.plugin.shown()
    }

    fn timeout(&self) -> Duration {
        self.desk.timeout
    }

    fn plan(
        &self,
        attempt: DialAttempt,
        confided: Redacted,
    ) -> BoxFuture<'static, Result<PlannedDial, NoPlan>> {
        self.confide(confided);
        let desk = self.desk.clone();
        Box::pin(async move {
            let mut work = JoinSet::new();
            work.spawn(async move { desk.ask(attempt).await });
            match work.join_next().await {
                Some(Ok(answer)) => answer,
                _ => Err(NoPlan::Failed("it met a fault of the host; the log has the panic".to_owned())),
            }
        })
    }

    fn confide(&self, confided: Redacted) {
        self.desk.lock().confided = confided;
    }

    fn keep_alive(&self) -> Option<BoxFuture<'static, ()>> {
        let interval = self.desk.lock().tick?.max(LEAST_TICK);
        let desk = self.desk.clone();
        Some(Box::pin(async move {
            let mut work = JoinSet::new();
            work.spawn(async move {
                loop {
                    tokio::time::sleep(interval).await;
                    desk.tick().await;
                }
            });
            // It ends with whoever polls this, or with a panic, which the log has.
            let _ = work.join_next().await;
        }))
    }
}

impl Desk {
    async fn ask(&self, attempt: DialAttempt) -> Result<PlannedDial, NoPlan> {
        let current = self.plugins.get(self.plugin.expose());
        let current = current.ok_or_else(|| NoPlan::Failed("it is not in the plugin folder".to_owned()))?;
        let setup = self.setup_now().await.map_err(|fault| NoPlan::Failed(fault.detail))?;
        let held = self.lock().instance.take();
        let is_current = |held: &ConnectorInstance| {
            held.plugin().version() == current.version() && *held.config() == setup.config
        };
        let mut instance = match held.filter(is_current) {
            Some(held) => held,
            None => self.start(&current, &setup).await.map_err(|fault| NoPlan::Failed(fault.detail))?,
        };
        instance.confide(self.lock().confided.clone());
        let answer = instance.before_connect(attempt).await;
        let answer = answer.map_err(|fault| NoPlan::Failed(format!("{}: {}", fault.kind, fault.detail)))?;
        self.lock().instance = Some(instance);
        answer.map_err(NoPlan::Refused)
    }

    /// What an instance is given now.
    async fn setup_now(&self) -> Result<Setup, Fault> {
        let config = resolved(&self.config).await;
        let config = config.map_err(|error| Fault::new(FaultKind::Init, format!("`config`: {error}")))?;
        Ok(Setup { config, ..self.setup.clone() })
    }

    async fn start(&self, plugin: &Plugin, setup: &Setup) -> Result<ConnectorInstance, Fault> {
        let instance = plugin.instantiate_connector(setup).await?;
        self.lock().tick = instance.tick_interval();
        Ok(instance)
    }

    /// Calls the timer, of a new instance where the one before has failed. What comes of it changes nothing for the
    /// connection.
    async fn tick(&self) {
        let ticked = match timeout(self.timeout, self.try_tick()).await {
            Ok(ticked) => ticked,
            Err(_) => Err(format!("its timer took longer than {:?}", self.timeout)),
        };
        if let Err(error) = ticked {
            let (pipeline, endpoint) = (&*self.setup.pipeline, &*self.setup.transform);
            let plugin = self.plugin.shown();
            tracing::warn!(pipeline, endpoint, plugin, error, "the timer of a connector failed");
        }
    }

    async fn try_tick(&self) -> Result<(), String> {
        let held = self.lock().instance.take();
        let mut instance = match (held, self.plugins.get(self.plugin.expose())) {
            (Some(held), _) => held,
            (None, Some(current)) => {
                let setup = self.setup_now().await.map_err(|fault| fault.detail)?;
                self.start(&current, &setup).await.map_err(|fault| fault.detail)?
            }
            (None, None) => return Err("it is not in the plugin folder".to_owned()),
        };
        instance.confide(self.lock().confided.clone());
        let ticked = instance.tick(now_us()).await;
        if ticked.as_ref().err().is_none_or(|fault| fault.is_refusal) {
            self.lock().instance = Some(instance);
        }
        ticked.map_err(|fault| fault.detail)
    }

    fn lock(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

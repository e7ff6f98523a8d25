//! A host with a configuration file that a test writes again.

use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tidemill_tests::host::{Folder, Host};
pub(crate) use tidemill_tests::pipelines::relay;
use tidemill_tests::plugin;

/// The grace period of the hosts here.
const GRACE: Duration = Duration::from_secs(30);

/// A host, and the folder that it runs in.
#[derive(Default)]
pub(crate) struct Site {
    pub(crate) folder: Folder,
    host: Option<Host>,
}

/// What a reload has made of a pipeline.
pub(crate) fn class(told: &Value, pipeline: &str) -> String {
    let mut all = told["pipelines"].as_array().into_iter().flatten();
    let found = all.find(|told| told["pipeline"] == pipeline);
    found.and_then(|told| told["class"].as_str()).unwrap_or_default().to_owned()
}

impl Site {
    /// Puts a shipped plugin into the plugin folder.
    pub(crate) fn install(&self, name: &str, shipped: &str) {
        self.folder.install(name, &plugin(shipped));
    }

    /// Runs a host with this configuration.
    pub(crate) fn run(self, config: &str) -> Self {
        self.run_with(&[], "", None, config)
    }

    /// The same with variables, and with more under `[admin]`, such as the token that is shown then.
    pub(crate) fn run_with(
        mut self,
        variables: &[(&str, &str)],
        admin: &str,
        token: Option<&str>,
        config: &str,
    ) -> Self {
        let mut command = self.folder.command(GRACE, config);
        self.write_admin(admin, config);
        command.envs(variables.iter().copied());
        let host = Host::start(&mut command);
        let host = token.into_iter().fold(host, Host::with_token);
        self.host = Some(host.with_admin());
        self
    }

    /// The same with these arguments more.
    pub(crate) fn run_watching(mut self, config: &str) -> Self {
        let mut command = self.folder.command(GRACE, config);
        command.arg("--watch");
        self.host = Some(Host::start(&mut command).with_admin());
        self
    }

    /// Runs a host with this configuration file as it is, its `[admin]` included.
    pub(crate) fn run_file(mut self, variables: &[(&str, &str)], text: &str) -> Self {
        let mut command = self.folder.command(GRACE, "");
        self.write_file(text);
        self.host = Some(Host::start(command.envs(variables.iter().copied())).with_admin());
        self
    }

    pub(crate) fn host(&self) -> &Host {
        self.host.as_ref().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// Writes the configuration file.
    pub(crate) fn write(&self, config: &str) {
        self.write_admin("", config);
    }

    pub(crate) fn write_admin(&self, admin: &str, config: &str) {
        self.write_file(&whole(admin, config));
    }

    pub(crate) fn write_file(&self, text: &str) {
        // Whoever reads it meanwhile reads all of it.
        std::fs::write(self.path("tidemill.new"), text).unwrap();
        std::fs::rename(self.path("tidemill.new"), self.path("tidemill.toml")).unwrap();
    }

    /// Asks without holding up the peers, which run in this test's own task.
    pub(crate) async fn json(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        tokio::task::block_in_place(|| self.host().json(method, path, &body))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.json("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Has the host reload.
    pub(crate) async fn reload(&self, query: &str) -> (u16, Value) {
        self.json("POST", &format!("/api/v1/reload{query}"), Value::Null).await
    }

    /// Writes the configuration file and has the host reload it, which is to do so without a fault.
    pub(crate) async fn change(&self, config: &str) -> Value {
        self.write(config);
        let (status, told) = self.reload("").await;
        assert_eq!(status, 200, "{told}\n{}", self.log());
        for told in told["pipelines"].as_array().unwrap() {
            assert!(told["error"].is_null(), "{told}\n{}", self.log());
        }
        told
    }

    /// The sum of the samples of a metric with these labels.
    pub(crate) async fn counted(&self, metric: &str, labels: &[&str]) -> u64 {
        tokio::task::block_in_place(|| self.host().metrics().count(metric, labels))
    }

    /// Waits until a metric with these labels has a value: what a peer has got is counted a moment later.
    pub(crate) async fn until_counted(&self, metric: &str, labels: &[&str], wanted: u64) {
        tokio::task::block_in_place(|| {
            self.host().wait_until(&format!("{metric} {labels:?} is {wanted}"), |now| {
                now.count(metric, labels) == wanted
            });
        });
    }

    /// Waits until a pipeline has a state.
    pub(crate) async fn becomes(&self, pipeline: &str, wanted: &str) {
        tokio::task::block_in_place(|| self.host().becomes(pipeline, wanted));
    }

    pub(crate) fn log(&self) -> String {
        self.host().log()
    }

    /// Stops the host, which is to end well.
    pub(crate) async fn stop(mut self) {
        let host = self.host.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || host.stop()).await.unwrap();
        assert!(ended.status.success(), "{}", ended.log);
    }
}

/// The configuration with the address of the API before it.
pub(crate) fn whole(admin: &str, config: &str) -> String {
    format!("[admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n{config}")
}

//! Requests to a desktop's daemon without kubectl's own start and discovery, for what is timed.

use crate::bench::{Desktop, Outcome};
use anyhow::{Result, ensure};

impl Desktop {
    /// Posts an object. The answer's headers come before its body.
    pub fn post(&self, path: &str, body: &str) -> Result<Outcome> {
        self.curl("--data-binary @-", path, body)
    }

    /// Reads what is at a path, without its headers.
    pub fn fetch(&self, path: &str) -> Result<serde_json::Value> {
        self.curl("--no-include", path, "")?.json()
    }

    fn curl(&self, options: &str, path: &str, body: &str) -> Result<Outcome> {
        let config = self.dir().join("curl.conf");
        if !config.exists() {
            let part = |path: &str| self.kubectl(&format!("config view --raw -o jsonpath='{path}'"))?.ok();
            let (token, server) = (part("{.users[0].user.token}")?, part("{.clusters[0].cluster.server}")?);
            ensure!(!token.is_empty(), "the kubeconfig has no token");
            std::fs::write(self.dir().join("server"), server)?;
            let headers = format!(
                "header = \"Authorization: Bearer {token}\"\nheader = \"Content-Type: application/json\"\n"
            );
            std::fs::write(&config, headers)?;
        }
        let server = std::fs::read_to_string(self.dir().join("server"))?;
        let config = config.display();
        self.exec_with(
            &format!("curl -sk --include --fail-with-body -K '{config}' {options} '{server}{path}'"),
            body,
        )
    }
}
